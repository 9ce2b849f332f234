"""What a call needs of a model, in the names of OpenAI's request fields where one has to be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from mainstay.models.types import Capability, ChatCall, MediaPart

ALL: Final[frozenset[Capability]] = frozenset(get_args(Capability))

FIELD_OF: Final[Mapping[Capability, str]] = {
    "images": "messages",
    "files": "messages",
    "audio": "messages",
    "json_object": "response_format",
    "json_schema": "response_format",
    "reasoning": "reasoning_effort",
    "penalties": "frequency_penalty",
}
"""The request field to name in an error, where it is not the capability's own name."""

_USUAL: Final = (None, 1)
_MEDIA: Final[Mapping[str, Capability]] = {"image": "images", "file": "files", "audio": "audio"}


def needs(call: ChatCall) -> frozenset[Capability]:
    """What must not be dropped: fields whose loss would change the answer's meaning."""
    found: set[Capability] = set()
    for message in call.messages:
        if message.tool_calls or message.role == "tool":
            found.add("tools")
        for part in message.parts:
            if isinstance(part, MediaPart):
                found.add(_MEDIA[part.kind])
    if call.tools:
        found.add("tools")
        if call.parallel_tool_calls is False:
            found.add("parallel_tool_calls")
    if call.response_format is not None:
        found.add("json_object" if call.response_format.schema is None else "json_schema")
    if call.reasoning is not None and (call.reasoning.effort or call.reasoning.budget_tokens):
        found.add("reasoning")
    _add_sampling(call, found)
    return frozenset(found)


def has_cache_marks(call: ChatCall) -> bool:
    """Whether a tool, a message or a part of one is marked for the provider's prompt cache."""
    for tool in call.tools:
        if tool.cache is not None:
            return True
    for message in call.messages:
        if message.cache is not None:
            return True
        for part in message.parts:
            if part.cache is not None:
                return True
    return False


def _add_sampling(call: ChatCall, found: set[Capability]) -> None:
    """What every model does unless told otherwise is no need: many clients always say it."""
    if call.temperature not in _USUAL:
        found.add("temperature")
    if call.top_p not in _USUAL:
        found.add("top_p")
    if call.top_k is not None:
        found.add("top_k")
    if call.n > 1:
        found.add("n")
    if call.seed is not None:
        found.add("seed")
    if call.stop:
        found.add("stop")
    if call.logprobs:
        found.add("logprobs")
    if call.frequency_penalty or call.presence_penalty:
        found.add("penalties")
    if call.logit_bias:
        found.add("logit_bias")
