"""What adapters that translate the normal form share: refusals that name the field, and small readings of it."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from mainstay.models.errors import ProviderBadRequest
from mainstay.models.types import ChatCall, ChatMessage, MediaPart, ToolCall, WireFormat

Block = dict[str, Any]

_HARMLESS: Final = frozenset({"safety_identifier", "prompt_cache_key", "prompt_cache_retention", "user"})
"""Hints to one vendor's caches and abuse reports: an answer is no other without them."""
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "store": (False,),
    "service_tier": ("auto", "default", "standard_only"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
}
"""Values that ask for nothing; some clients always send them."""


def refused(provider: str, field: str, why: str, fix: str | None = None) -> ProviderBadRequest:
    """The error for what a provider's wire format cannot say. `field` is the request's, e.g. `temperature`."""
    error = ProviderBadRequest(f"{field}: {provider} {why}.", provider=provider, fix=fix)
    error.detail["param"] = field
    return error


def own_extra(
    call: ChatCall, provider: str, own_format: WireFormat | None, own: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The fields of `call.extra` that this provider knows: all when the client speaks its format, else those in `own`.

    Raises ProviderBadRequest for the first other one, unless nothing is lost by leaving it out.
    """
    if own_format is not None and call.source_format == own_format:
        return dict(call.extra)
    known: dict[str, Any] = {}
    for name, value in call.extra.items():
        if name in own:
            known[name] = value
        elif name not in _HARMLESS and value not in _NEUTRAL.get(name, ()):
            raise refused(provider, name, "has no such field", f"Leave {name} out.")
    return known


def arguments_object(provider: str, field: str, call: ToolCall) -> dict[str, Any]:
    """A tool call's arguments as the JSON object they must be; no text at all is the empty object."""
    try:
        value = orjson.loads(call.arguments) if call.arguments.strip() else {}
    except orjson.JSONDecodeError as error:
        raise refused(provider, field, f"needs JSON, but this is not: {error}") from error
    if not isinstance(value, dict):
        raise refused(provider, field, "needs a JSON object")
    return value


def inline_data(part: MediaPart) -> tuple[str | None, str] | None:
    """(media type, base64) of a part that carries its bytes, be it in a `data:` URL; None when it refers to them."""
    if part.data is not None:
        return part.media_type, part.data
    if part.url is None or not part.url.startswith("data:"):
        return None
    head, _, data = part.url[5:].partition(",")
    return (head.removesuffix(";base64").split(";")[0] or part.media_type), data


def decoded_text(provider: str, field: str, data: str) -> str:
    """The UTF-8 text in base64 `data`."""
    try:
        return b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise refused(provider, field, f"needs UTF-8 text in base64 ({error})") from error


def conversation(
    provider: str,
    messages: Iterable[ChatMessage],
    turn: Callable[[ChatMessage, str], tuple[str, list[Block]]],
) -> tuple[list[Block], list[Block]]:
    """`system` blocks and `messages` of a format with turns of content blocks (Anthropic Messages, Converse).

    `turn` gives a message's role there and its blocks; adjacent messages of one role are one turn. A system
    message stays where it is after a user's turn, goes to `system` at the start, and is refused elsewhere.
    """
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.name is not None and message.role != "tool":
            raise refused(provider, f"{where}.name", "has no names of speakers", "Say the name in the text.")
        role, blocks = turn(message, where)
        if role == "system" and not turns:
            system += blocks
        elif role == "system" and turns[-1]["role"] == "assistant":
            raise refused(
                provider,
                where,
                "takes a system message at the start of a conversation or after a user's turn only",
                "Move it to the start, or directly after a user message.",
            )
        elif blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:  # a message without content says nothing, and empty text is refused
            turns.append({"role": role, "content": blocks})
    return system, turns
