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

_MEDIA: Final[Mapping[str, Capability]] = {"image": "images", "file": "files", "audio": "audio"}


def needs(call: ChatCall) -> frozenset[Capability]:
    """What must not be dropped: fields whose loss would change the answer's meaning."""
    found: set[Capability] = set()
    if call.tools or any(m.tool_calls or m.role == "tool" for m in call.messages):
        found.add("tools")
    if call.tools and call.parallel_tool_calls is False:
        found.add("parallel_tool_calls")
    if call.response_format is not None:
        found.add("json_object" if call.response_format.schema is None else "json_schema")
    for message in call.messages:
        found.update(_MEDIA[part.kind] for part in message.parts if isinstance(part, MediaPart))
    if call.reasoning is not None and (call.reasoning.effort or call.reasoning.budget_tokens):
        found.add("reasoning")
    found.update(_sampling_needs(call))
    return frozenset(found)


def _sampling_needs(call: ChatCall) -> set[Capability]:
    asked: dict[Capability, bool] = {
        "logprobs": call.logprobs,
        "n": call.n > 1,
        "seed": call.seed is not None,
        "stop": bool(call.stop),
        # What every model does unless told otherwise is no need: many clients always say it.
        "temperature": call.temperature not in (None, 1),
        "top_p": call.top_p not in (None, 1),
        "top_k": call.top_k is not None,
        "penalties": bool(call.frequency_penalty or call.presence_penalty),
        "logit_bias": bool(call.logit_bias),
    }
    return {name for name, wanted in asked.items() if wanted}
