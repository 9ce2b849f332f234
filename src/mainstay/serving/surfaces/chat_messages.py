"""The messages of an OpenAI chat request: roles, content parts, tool calls and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from mainstay.models.types import ChatMessage, MediaPart, Part, Role, TextPart, Thinking, ToolCall
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import common

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_PLAIN: Final = frozenset({"system", "developer", "user", "assistant"})
_AUDIO_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_FILE_TYPES: Final = {".pdf": "application/pdf", ".txt": "text/plain"}


def read_messages(value: Any, where: str) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise BadField(where, "must be a list of at least one message.")
    called: dict[str, str] = {}
    messages = []
    for index, item in enumerate(value):
        # Almost every message is a role and a string: no path is written, nothing else is looked for.
        if isinstance(item, dict) and len(item) == 2:
            role, content = item.get("role"), item.get("content")
            if isinstance(content, str) and isinstance(role, str) and role in _PLAIN:
                messages.append(ChatMessage(cast(Role, role), content))
                continue
        messages.append(_message(item, f"{where}[{index}]", called, index))
    return tuple(messages)


def _message(item: Any, where: str, called: dict[str, str], index: int) -> ChatMessage:
    """`called`: the ids given so far to calls of the older `function_call`, by function name."""
    if not isinstance(item, dict):
        raise BadField(where, "must be an object with role and content.")
    role = item.get("role")
    if role not in _ROLES:
        raise BadField(f"{where}.role", f"must be one of {', '.join(_ROLES)}; got {common.shown(role)}.")
    common.bound_members(item, where, "content")
    if role == "assistant":
        return _assistant(item, where, called, index)
    for calling in ("tool_calls", "function_call"):
        if item.get(calling):
            raise BadField(f"{where}.{calling}", "belongs to messages of the role assistant.")
    name: Any = item.get("name")
    call_id: Any = item.get("tool_call_id")
    if role == "tool":
        call_id = common.text(call_id, f"{where}.tool_call_id")
    elif call_id is not None:
        raise BadField(f"{where}.tool_call_id", "belongs to messages of the role tool.")
    if role == "function":
        role, call_id = "tool", _legacy_id(name, where, called)
    content, parts = _content(item.get("content"), f"{where}.content")
    return ChatMessage(
        cast(Role, role),
        content,
        parts,
        tool_call_id=call_id,
        name=None if name is None else common.string(name, f"{where}.name"),
        cache=common.cache_mark(item, where),
    )


def _legacy_id(name: Any, where: str, called: dict[str, str]) -> str:
    common.text(name, f"{where}.name")
    if name not in called:
        raise BadField(f"{where}.name", f"no function_call before this message calls {common.shown(name)}.")
    return called[name]


def _assistant(item: Mapping[str, Any], where: str, called: dict[str, str], index: int) -> ChatMessage:
    if item.get("audio") is not None:
        raise BadField(f"{where}.audio", "is not supported: answers are text only.")
    calls = _tool_calls(item.get("tool_calls"), f"{where}.tool_calls")
    if (function := item.get("function_call")) is not None:
        name, arguments = _called_function(function, f"{where}.function_call")
        called[name] = f"call_function_{index}"
        calls = (*calls, ToolCall(called[name], name, arguments))
    content, parts = _assistant_content(item, where, bool(calls))
    spoken_by = item.get("name")
    return ChatMessage(
        "assistant",
        content,
        parts,
        calls,
        name=None if spoken_by is None else common.string(spoken_by, f"{where}.name"),
        thinking=_thinking(item, where),
        cache=common.cache_mark(item, where),
    )


def _assistant_content(item: Mapping[str, Any], where: str, calls: bool) -> tuple[str, tuple[Part, ...]]:
    """A refusal is what the assistant said: it stands where its text would."""
    content, refusal = item.get("content"), item.get("refusal")
    if content is None or content == "":
        if refusal is not None:
            return common.string(refusal, f"{where}.refusal"), ()
        if calls or content == "":
            return "", ()
    return _content(content, f"{where}.content")


def _tool_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    return tuple(
        _tool_call(item, f"{where}[{index}]") for index, item in enumerate(common.items(value, where))
    )


def _tool_call(item: Any, where: str) -> ToolCall:
    call = common.mapping(item, where)
    if call.get("type", "function") != "function":
        raise BadField(f"{where}.type", f"{common.shown(call['type'])} is not supported: only functions are.")
    call_id = common.text(call.get("id"), f"{where}.id")
    return ToolCall(call_id, *_called_function(call.get("function"), f"{where}.function"))


def _called_function(value: Any, where: str) -> tuple[str, str]:
    function = common.mapping(value, where)
    name = common.text(function.get("name"), f"{where}.name")
    return name, common.string(function.get("arguments"), f"{where}.arguments")


def _thinking(item: Mapping[str, Any], where: str) -> tuple[Thinking, ...]:
    """Blocks with their signatures where the client kept them, else the text alone."""
    blocks = item.get("thinking_blocks")
    if blocks:
        where = f"{where}.thinking_blocks"
        return tuple(
            _thinking_block(block, f"{where}[{index}]")
            for index, block in enumerate(common.items(blocks, where))
        )
    for name in ("reasoning_content", "reasoning"):
        if item.get(name):
            return (Thinking(common.string(item[name], f"{where}.{name}")),)
    return ()


def _thinking_block(value: Any, where: str) -> Thinking:
    block = common.mapping(value, where)
    kind = block.get("type")
    if kind == "redacted_thinking":
        return Thinking(encrypted=common.text(block.get("data"), f"{where}.data"))
    if kind != "thinking":
        raise BadField(f"{where}.type", "must be thinking or redacted_thinking.")
    signature = block.get("signature")
    return Thinking(
        common.string(block.get("thinking"), f"{where}.thinking"),
        None if signature is None else common.string(signature, f"{where}.signature"),
    )


def _content(content: Any, where: str) -> tuple[str, tuple[Part, ...]]:
    """(text, parts); one text without marks is the same as a string, and needs no parts."""
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise BadField(where, "must be a string or a list of parts.")
    parts = tuple(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    text = common.joined(parts)
    if not parts or (len(parts) == 1 and isinstance(parts[0], TextPart) and parts[0].cache is None):
        return text, ()
    return text, parts


def _part(item: Any, where: str) -> Part:
    if not isinstance(item, dict):
        raise BadField(where, "must be an object with a type.")
    kind = item.get("type")
    reader = _PARTS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise BadField(
            f"{where}.type",
            f"{common.shown(kind)} is not supported.",
            fix=f"Send one of {', '.join(_PARTS)}.",
        )
    common.bound_members(item, where)
    return reader(item, where)


def _text_part(item: Mapping[str, Any], where: str) -> TextPart:
    return TextPart(common.string(item.get("text"), f"{where}.text"), common.cache_mark(item, where))


def _refusal_part(item: Mapping[str, Any], where: str) -> TextPart:
    return TextPart(common.string(item.get("refusal"), f"{where}.refusal"))


def _image_part(item: Mapping[str, Any], where: str) -> MediaPart:
    image = common.mapping(item.get("image_url"), f"{where}.image_url")
    detail = image.get("detail")
    if detail is not None:
        common.string(detail, f"{where}.image_url.detail")
    cache = common.cache_mark(item, where)
    return common.media_by_url(
        image.get("url"), f"{where}.image_url.url", kind="image", detail=detail, cache=cache
    )


def _audio_part(item: Mapping[str, Any], where: str) -> MediaPart:
    audio = common.mapping(item.get("input_audio"), f"{where}.input_audio")
    form = audio.get("format")
    if not isinstance(form, str) or form not in _AUDIO_TYPES:
        raise BadField(f"{where}.input_audio.format", f"must be wav or mp3; got {common.shown(form)}.")
    data = common.text(audio.get("data"), f"{where}.input_audio.data")
    return MediaPart("audio", _AUDIO_TYPES[form], data, cache=common.cache_mark(item, where))


def _file_part(item: Mapping[str, Any], where: str) -> MediaPart:
    file = common.mapping(item.get("file"), f"{where}.file")
    name, file_id, data = file.get("filename"), file.get("file_id"), file.get("file_data")
    if name is not None:
        common.string(name, f"{where}.file.filename")
    cache = common.cache_mark(item, where)
    if file_id is not None:
        return MediaPart(
            "file", file_id=common.text(file_id, f"{where}.file.file_id"), name=name, cache=cache
        )
    inline = common.text(data, f"{where}.file.file_data")
    if inline.startswith(("data:", "http://", "https://")):
        return common.media_by_url(inline, f"{where}.file.file_data", kind="file", name=name, cache=cache)
    ending = name[name.rfind(".") :].lower() if name and "." in name else ""
    return MediaPart("file", _FILE_TYPES.get(ending), inline, name=name, cache=cache)


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Part]]] = {
    "text": _text_part,
    "image_url": _image_part,
    "input_audio": _audio_part,
    "file": _file_part,
    "refusal": _refusal_part,
}
