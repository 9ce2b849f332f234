"""The content of Anthropic messages: blocks become messages of the normal form.

A user's turn that holds results of tools becomes one message for each of them and one for what else it says;
an assistant's turn is one message, or several where thinking follows text, since the order must stay.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import orjson

from mainstay.models.types import CacheMark, ChatMessage, MediaPart, Part, TextPart, Thinking, ToolCall
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import common

_USER_BLOCKS: Final = ("text", "image", "document", "tool_result")
_ASSISTANT_BLOCKS: Final = ("text", "thinking", "redacted_thinking", "tool_use")


class Conversation:
    """Reads one request's messages; puts what has no normal form into `extra` under its path."""

    def __init__(self, extra: dict[str, Any]) -> None:
        self._extra = extra

    def read(self, value: Any, where: str) -> tuple[ChatMessage, ...]:
        items = common.items(value, where)
        if not items:
            raise BadField(where, "must have at least one message.")
        return tuple(
            message for index, item in enumerate(items) for message in self._turn(item, f"{where}[{index}]")
        )

    def text_message(self, role: Literal["system"], value: Any, where: str) -> ChatMessage:
        if isinstance(value, str):
            return ChatMessage(role, value)
        parts = tuple(self._part(block, path) for block, path in _blocks(value, where, ("text",)))
        return ChatMessage(role, *_said(parts))

    def _turn(self, item: Any, where: str) -> Iterator[ChatMessage]:
        if not isinstance(item, dict):
            raise BadField(where, "must be an object with role and content.")
        role, content, path = item.get("role"), item.get("content"), f"{where}.content"
        common.bound_members(item, where, "content")
        if role == "system":
            yield self.text_message("system", content, path)
        elif role not in ("user", "assistant"):
            raise BadField(f"{where}.role", f"must be user, assistant or system; got {common.shown(role)}.")
        elif isinstance(content, str):
            yield ChatMessage(role, content)
        elif role == "user":
            yield from self._user(content, path)
        else:
            yield from self._assistant(content, path)

    def _user(self, content: Any, where: str) -> Iterator[ChatMessage]:
        parts: list[Part] = []
        for block, path in _blocks(content, where, _USER_BLOCKS):
            if block["type"] != "tool_result":
                parts.append(self._part(block, path))
                continue
            if parts:
                yield ChatMessage("user", *_said(tuple(parts)))
                parts = []
            yield self._tool_result(block, path)
        if parts or not content:
            yield ChatMessage("user", *_said(tuple(parts)))

    def _tool_result(self, block: Mapping[str, Any], where: str) -> ChatMessage:
        call_id = common.text(block.get("tool_use_id"), f"{where}.tool_use_id")
        content, failed = block.get("content"), block.get("is_error")
        parts: tuple[Part, ...]
        if content is None or isinstance(content, str):
            text, parts = content or "", ()
        else:
            allowed = ("text", "image", "document")
            inside = _blocks(content, f"{where}.content", allowed)
            text, parts = _said(tuple(self._part(inner, path) for inner, path in inside))
        return ChatMessage(
            "tool",
            text,
            parts,
            tool_call_id=call_id,
            is_error=False if failed is None else common.flag(failed, f"{where}.is_error"),
            cache=common.cache_mark(block, where),
        )

    def _assistant(self, content: Any, where: str) -> Iterator[ChatMessage]:
        turn = _Turn()
        for block, path in _blocks(content, where, _ASSISTANT_BLOCKS):
            kind = block["type"]
            if kind in ("thinking", "redacted_thinking"):
                if turn.parts and not turn.calls:
                    yield turn.message()
                    turn = _Turn()
                turn.thinking.append(_thinking(block, path))
            elif kind == "tool_use":
                turn.calls.append(_tool_use(block, path))
                turn.cache = common.cache_mark(block, path) or turn.cache
            else:
                turn.parts.append(self._part(block, path))
        yield turn.message()

    def _part(self, block: Mapping[str, Any], where: str) -> Part:
        cache = common.cache_mark(block, where)
        if block["type"] == "text":
            return TextPart(common.string(block.get("text"), f"{where}.text"), cache)
        source = common.inner(block.get("source"), f"{where}.source")
        if block["type"] == "image":
            return _image(source, f"{where}.source", cache=cache)
        title = block.get("title")
        if title is not None:
            common.string(title, f"{where}.title")
        if block.get("context"):
            self._extra[f"{where}.context"] = common.string(block["context"], f"{where}.context")
        citations = common.mapping(block.get("citations") or {}, f"{where}.citations")
        if citations.get("enabled"):
            self._extra[f"{where}.citations"] = citations
        return _document(source, f"{where}.source", name=title or None, cache=cache)


class _Turn:
    """One assistant message as it is gathered."""

    def __init__(self) -> None:
        self.thinking: list[Thinking] = []
        self.parts: list[Part] = []
        self.calls: list[ToolCall] = []
        self.cache: CacheMark | None = None

    def message(self) -> ChatMessage:
        text, parts = _said(tuple(self.parts))
        return ChatMessage(
            "assistant", text, parts, tuple(self.calls), thinking=tuple(self.thinking), cache=self.cache
        )


def _blocks(value: Any, where: str, allowed: tuple[str, ...]) -> Iterator[tuple[Mapping[str, Any], str]]:
    if not isinstance(value, list):
        raise BadField(where, "must be a string or a list of blocks.")
    for index, block in enumerate(value):
        path = f"{where}[{index}]"
        if not isinstance(block, dict):
            raise BadField(path, "must be an object with a type.")
        if block.get("type") not in allowed:
            raise BadField(
                f"{path}.type",
                f"{common.shown(block.get('type'))} is not supported here.",
                fix=f"Send one of {', '.join(allowed)}.",
            )
        common.bound_members(block, path, "content" if block["type"] == "tool_result" else "")
        yield block, path


def _said(parts: tuple[Part, ...]) -> tuple[str, tuple[Part, ...]]:
    """(text, parts); one text without a mark is the same as a string, and needs no parts."""
    text = common.joined(parts)
    if not parts or (len(parts) == 1 and isinstance(parts[0], TextPart) and parts[0].cache is None):
        return text, ()
    return text, parts


def _thinking(block: Mapping[str, Any], where: str) -> Thinking:
    if block["type"] == "redacted_thinking":
        return Thinking(encrypted=common.text(block.get("data"), f"{where}.data"))
    signature = common.string(block.get("signature") or "", f"{where}.signature")
    return Thinking(common.string(block.get("thinking"), f"{where}.thinking"), signature or None)


def _tool_use(block: Mapping[str, Any], where: str) -> ToolCall:
    call_id = common.text(block.get("id"), f"{where}.id")
    name = common.text(block.get("name"), f"{where}.name")
    given = common.mapping(block.get("input"), f"{where}.input")
    return ToolCall(call_id, name, orjson.dumps(given).decode())


def _image(source: Mapping[str, Any], where: str, **more: Any) -> MediaPart:
    if source.get("type") == "base64":
        media_type = common.text(source.get("media_type"), f"{where}.media_type")
        return MediaPart("image", media_type, common.text(source.get("data"), f"{where}.data"), **more)
    return _referred("image", None, source, where, ("base64", "url", "file"), more)


def _document(source: Mapping[str, Any], where: str, **more: Any) -> MediaPart:
    """Plain text is carried as base64, as all data of media is."""
    kind = source.get("type")
    if kind == "base64":
        media_type = common.text(source.get("media_type"), f"{where}.media_type")
        return MediaPart("file", media_type, common.text(source.get("data"), f"{where}.data"), **more)
    if kind == "text":
        text = common.string(source.get("data"), f"{where}.data")
        return MediaPart("file", "text/plain", b64encode(text.encode()).decode(), **more)
    return _referred("file", "application/pdf", source, where, ("base64", "text", "url", "file"), more)


def _referred(
    kind: Literal["image", "file"],
    media_type: str | None,
    source: Mapping[str, Any],
    where: str,
    allowed: tuple[str, ...],
    more: dict[str, Any],
) -> MediaPart:
    if source.get("type") == "url":
        return MediaPart(kind, media_type, url=common.text(source.get("url"), f"{where}.url"), **more)
    if source.get("type") == "file":
        return MediaPart(kind, file_id=common.text(source.get("file_id"), f"{where}.file_id"), **more)
    raise BadField(f"{where}.type", f"must be one of {', '.join(allowed)}.")
