"""Names the conversation a request belongs to, so that its turns meet the same provider's prompt cache."""

from __future__ import annotations

import hashlib
from typing import Final

from mainstay.models.types import ChatMessage
from mainstay.serving.types import ChatRequest

_CONVERSATION_KEYS: Final = (
    "conversation_id",
    "session_id",
    "thread_id",
    "conversation",
    "session",
    "thread",
)
_TEXT_CHARACTERS_MAX: Final = 2048
_TOOLS_MAX: Final = 64


def sticky_key(request: ChatRequest) -> str | None:
    """The conversation's id in the metadata, `prompt_cache_key`, the user, else a digest of how it began.

    The beginning is the system prompt, the first user message and the tools' names: the same in every turn.
    At most 2,048 characters of each are read. None when there are none of them.
    """
    for name in _CONVERSATION_KEYS:
        if value := _text(request.metadata.get(name)):
            return f"conversation:{value}"
    if value := _text(request.call.extra.get("prompt_cache_key")):
        return f"cache:{value}"
    if value := _text(request.call.user):
        return f"user:{value}"
    return _beginning(request)


def _text(value: object) -> str | None:
    """Ids are strings; some clients send numbers, or `{"id": …}`."""
    if isinstance(value, dict):
        value = value.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value[:_TEXT_CHARACTERS_MAX] if isinstance(value, str) and value else None


def _beginning(request: ChatRequest) -> str | None:
    call = request.call
    system = next((m for m in call.messages if m.role in ("system", "developer")), None)
    first = next((m for m in call.messages if m.role == "user"), None)
    if system is None and first is None and not call.tools:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for text in (_opening(system), _opening(first), *(tool.name for tool in call.tools[:_TOOLS_MAX])):
        digest.update(text.encode("utf-8", "replace"))
        digest.update(b"\0")
    return f"beginning:{digest.hexdigest()}"


def _opening(message: ChatMessage | None) -> str:
    return "" if message is None else message.content[:_TEXT_CHARACTERS_MAX]
