"""What of a provider's own bytes nobody has read: a guard that read the words has not read the bytes.

A body is relayed as it came, with members that have no normal form (annotations, citations, details of reasoning,
fields yet unknown). Under an output rail it is relayed only if no rule objects to any string in it; else what is
known is written anew, without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Final, Literal

import msgspec
import orjson

from mainstay.guard import Guard
from mainstay.guard.types import Policy
from mainstay.serving.json_text import strings_of

_FRAME: Final = frozenset(
    {
        "id", "object", "created", "model", "choices", "index", "delta", "message", "role", "content", "refusal",
        "finish_reason", "logprobs", "usage", "type", "text", "thinking", "partial_json", "stop_reason",
        "stop_sequence", "content_block", "assistant", "chat.completion", "chat.completion.chunk", "function",
        "tool_calls", "name", "arguments", "reasoning_content", "reasoning", "system_fingerprint", "service_tier",
    }
)  # fmt: skip
"""Words of the wire formats themselves."""


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["assistant"]
    content: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=0)] | None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    message: _Message
    index: int
    finish_reason: str
    logprobs: None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """An OpenAI answer of mere text, with nothing in it but what the normal form has and the server's own labels."""

    choices: list[_Choice]
    id: str
    object: str
    created: int
    model: str
    usage: dict[str, int | float | dict[str, int | float | None] | None] | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None


_decode_text_answer = msgspec.json.Decoder(_Body).decode


def _is_mere_text(raw: bytes) -> bool:
    try:
        _decode_text_answer(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def may_relay(raw: bytes, read: Callable[[], Collection[str]], guard: Guard, policy: Policy) -> bool:
    """Whether the output rail lets every string pass that is in `raw` and not among those that were `read` already."""
    if _is_mere_text(raw):
        return True
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    unread = strings_of(body) - _FRAME - {"", *read()}
    if not unread:
        return True
    # Sorted, so that the same body is always judged alike.
    return guard.check("\n".join(sorted(unread)), "output", policy).action in ("allow", "flag")
