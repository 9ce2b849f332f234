"""From a response's input items to messages (OpenAI API reference, "Responses"; types as of openai-python 3.54).

Reasoning, an assistant's words and its function calls that follow one another are one assistant message:
every provider wants a turn's calls together and their results right after them.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from mainstay.models.types import CacheMark, ChatMessage, MediaPart, Part, Role, TextPart, Thinking, ToolCall
from mainstay.serving.surfaces.responses_reader import Fields, clipped
from mainstay.serving.surfaces.responses_secrets import opened

_ROLES = ("user", "assistant", "system", "developer")
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_DETAILS = ("auto", "low", "high", "original")


class ItemReader:
    """Takes items in order; `messages()` gives what they come to. Call ids of `earlier` turns may be answered."""

    def __init__(self, earlier: Sequence[ChatMessage] = ()) -> None:
        self._messages: list[ChatMessage] = []
        self._turn: ChatMessage | None = None
        self._call_ids = {call.id for message in earlier for call in message.tool_calls}

    def take(self, item: object, where: str) -> None:
        """Raises BadField with the item's path."""
        fields = Fields(item, where)
        kind = fields.text("type") or ("message" if "role" in fields else "")
        reader = _READERS.get(kind)
        if reader is None:
            fields.refuse(
                "type",
                f"{clipped(kind)} is not supported." if kind else "must say what the item is.",
                fix="Supported: message, function_call, function_call_output, reasoning, item_reference.",
            )
        fields.ignore("id", "status")
        reader(self, fields)
        fields.refuse_unread()

    def messages(self) -> tuple[ChatMessage, ...]:
        self.end_turn()
        return tuple(self._messages)

    def message(self, fields: Fields) -> None:
        role = fields.one_of("role", _ROLES)
        if role is None:
            fields.refuse("role", f"must be one of {', '.join(_ROLES)}.")
        if fields.one_of("phase", ("commentary", "final_answer")) == "commentary":
            fields.refuse("phase", "'commentary' is not supported.", fix="Leave the commentary out.")
        parts = _parts(fields, "content", _ASSISTANT_PARTS if role == "assistant" else _PARTS)
        if role in ("system", "developer") and any(isinstance(part, MediaPart) for part in parts):
            fields.refuse("content", f"a {role} message holds text only.")
        message = with_parts(ChatMessage(cast(Role, role)), parts)
        if role == "assistant":
            self._say(message)
        else:
            self.end_turn()
            self._messages.append(message)

    def function_call(self, fields: Fields) -> None:
        call_id = fields.needed_text("call_id")
        call = ToolCall(call_id, fields.needed_text("name"), fields.text("arguments") or "")
        self._call_ids.add(call_id)
        turn = self._turn or ChatMessage("assistant")
        self._turn = replace(turn, tool_calls=(*turn.tool_calls, call))

    def function_call_output(self, fields: Fields) -> None:
        call_id = fields.needed_text("call_id")
        if call_id not in self._call_ids:
            fields.refuse(
                "call_id",
                f"no function call before it has the id {clipped(call_id)}.",
                fix="Send the function_call item too, or the previous_response_id of the response that made it.",
            )
        if "output" not in fields:
            fields.refuse("output", "must be a string or a list of parts.")
        parts = _parts(fields, "output", _PARTS)
        self.end_turn()
        self._messages.append(with_parts(ChatMessage("tool", tool_call_id=call_id), parts))

    def reasoning(self, fields: Fields) -> None:
        block = _thinking(fields)
        if block is None:
            return
        turn = self._turn
        if turn is not None and turn.content and not turn.tool_calls:
            self.end_turn()
        turn = self._turn or ChatMessage("assistant")
        self._turn = replace(turn, thinking=(*turn.thinking, block))

    def _say(self, message: ChatMessage) -> None:
        turn = self._turn
        if turn is None or ((turn.content or turn.parts) and not turn.tool_calls):
            self.end_turn()
            self._turn = message
            return
        parts = (*_as_parts(turn), *_as_parts(message))
        self._turn = with_parts(turn, parts)

    def end_turn(self) -> None:
        """What the assistant says next is a new message."""
        if self._turn is not None:
            self._messages.append(self._turn)
            self._turn = None


_READERS: Mapping[str, Callable[[ItemReader, Fields], None]] = {
    "message": ItemReader.message,
    "function_call": ItemReader.function_call,
    "function_call_output": ItemReader.function_call_output,
    "reasoning": ItemReader.reasoning,
}


def with_parts(message: ChatMessage, parts: Sequence[Part]) -> ChatMessage:
    """`parts` as a message holds them: text alone needs no parts."""
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    alone = len(parts) <= 1 and all(isinstance(part, TextPart) and part.cache is None for part in parts)
    return replace(message, content=text, parts=() if alone else tuple(parts))


def _as_parts(message: ChatMessage) -> tuple[Part, ...]:
    return message.parts or ((TextPart(message.content),) if message.content else ())


def _parts(fields: Fields, name: str, kinds: Mapping[str, Callable[[Fields], Part]]) -> tuple[Part, ...]:
    value = fields.take(name)
    if isinstance(value, str):
        return (TextPart(value),)
    if not isinstance(value, list):
        fields.refuse(name, "must be a string or a list of parts.")
    return tuple(_part(part, f"{fields.path(name)}[{index}]", kinds) for index, part in enumerate(value))


def _part(value: object, where: str, kinds: Mapping[str, Callable[[Fields], Part]]) -> Part:
    fields = Fields(value, where)
    kind = fields.text("type") or ""
    read = kinds.get(kind)
    if read is None:
        fields.refuse("type", f"must be one of {', '.join(kinds)}; got {clipped(kind)}.")
    part = replace(read(fields), cache=_cache(fields))
    fields.refuse_unread()
    return part


def _cache(fields: Fields) -> CacheMark | None:
    """An explicit breakpoint; how long the cache lives is left to the provider."""
    mark = fields.nested("prompt_cache_breakpoint")
    if mark is None:
        return None
    mark.one_of("mode", ("explicit",))
    mark.refuse_unread()
    return CacheMark()


def _input_text(fields: Fields) -> TextPart:
    text = fields.text("text")
    if text is None:
        fields.refuse("text", "must be a string.")
    return TextPart(text)


def _output_text(fields: Fields) -> TextPart:
    fields.ignore("annotations", "logprobs", "parsed")
    return _input_text(fields)


def _refusal(fields: Fields) -> TextPart:
    text = fields.text("refusal")
    if text is None:
        fields.refuse("refusal", "must be a string.")
    return TextPart(text)


def _input_image(fields: Fields) -> MediaPart:
    url, file_id = fields.text("image_url"), fields.text("file_id")
    if (url is None) == (file_id is None):
        fields.refuse("image_url", "give either image_url or file_id.")
    part = MediaPart("image", file_id=file_id, detail=fields.one_of("detail", _DETAILS))
    return part if url is None else _located(part, url, fields, "image_url")


def _input_file(fields: Fields) -> MediaPart:
    data, url, file_id = fields.text("file_data"), fields.text("file_url"), fields.text("file_id")
    if sum(given is not None for given in (data, url, file_id)) != 1:
        fields.refuse("file_data", "give exactly one of file_data, file_url and file_id.")
    name = fields.text("filename")
    part = MediaPart("file", file_id=file_id, name=name, detail=fields.one_of("detail", _DETAILS))
    if url is not None:
        return _located(part, url, fields, "file_url")
    if data is None:
        return part
    if data.startswith("data:"):
        return _located(part, data, fields, "file_data")
    return replace(part, data=data, media_type=mimetypes.guess_type(name or "")[0])


def _input_audio(fields: Fields) -> MediaPart:
    audio = fields.nested("input_audio")
    if audio is None:
        fields.refuse("input_audio", "must be an object with data and format.")
    kind = audio.one_of("format", _AUDIO)
    if kind is None:
        audio.refuse("format", f"must be one of {', '.join(_AUDIO)}.")
    part = MediaPart("audio", data=audio.needed_text("data"), media_type=_AUDIO[kind])
    audio.refuse_unread()
    return part


def _located(part: MediaPart, url: str, fields: Fields, name: str) -> MediaPart:
    """`part` at a web address, or with the bytes of a data URL (RFC 2397)."""
    if url.startswith(("https://", "http://")):
        return replace(part, url=url)
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        fields.refuse(name, "must be an http(s) URL or a base64 data URL.")
    media_type = head[len("data:") : -len(";base64")].partition(";")[0]
    return replace(part, data=data, media_type=media_type or None)


def _thinking(fields: Fields) -> Thinking | None:
    """None when the item carries nothing: only an id, whose text its server kept."""
    summary = _texts(fields, "summary", "summary_text")
    content = _texts(fields, "content", "reasoning_text")
    secret = fields.text("encrypted_content")
    text = "".join(content) or "\n\n".join(summary)
    if secret is None:
        return Thinking(text) if text else None
    block = opened(secret, text, fields.text("id"))
    return block or fields.refuse("encrypted_content", "is not what was given out.", fix="Send it unchanged.")


def _texts(fields: Fields, name: str, kind: str) -> list[str]:
    found = []
    for index, value in enumerate(fields.array(name) or []):
        part = Fields(value, f"{fields.path(name)}[{index}]")
        part.one_of("type", (kind,))
        found.append(_input_text(part).text)
        part.refuse_unread()
    return found


_PARTS: Mapping[str, Callable[[Fields], Part]] = {
    "input_text": _input_text,
    "input_image": _input_image,
    "input_file": _input_file,
    "input_audio": _input_audio,
}
_ASSISTANT_PARTS: Mapping[str, Callable[[Fields], Part]] = {
    "output_text": _output_text,
    "refusal": _refusal,
    "input_text": _input_text,
}


def listed(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Input items as they are kept and listed: every message's content a list of parts."""
    return [_listed(item) for item in items]


def _listed(item: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in item.items() if value is not None}
    if "role" not in known:
        return {"status": "completed", **known}
    content = known.get("content")
    if isinstance(content, str):
        kind = "output_text" if known["role"] == "assistant" else "input_text"
        known["content"] = [
            {"type": kind, "text": content} | ({"annotations": []} if kind == "output_text" else {})
        ]
    return {"type": "message", "status": "completed", **known}
