"""Messages of a trace as people read them: text, reasoning, calls of tools, media. Any of the forms that spans hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A model's wish to call a tool. `arguments` are indented when they are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `answers`: the id of the tool call whose result it is; `media` are named, not shown."""

    role: str
    content: str
    reasoning: str = ""
    tools: tuple[ToolUse, ...] = ()
    answers: str | None = None
    media: tuple[str, ...] = ()


def turns(messages: Any) -> list[Turn]:
    return [_turn(message) for message in _dicts(messages)]


def _turn(message: Mapping[str, Any]) -> Turn:
    content = message.get("content", message.get("parts", ""))
    parts = _dicts(content)
    said = content if isinstance(content, str) else "\n".join(filter(None, map(_part_text, parts)))
    calls = [*_dicts(message.get("tool_calls")), *(p for p in parts if p.get("type") == "tool_call")]
    thought = message.get("reasoning") or message.get("reasoning_content")
    thoughts = [thought, *(p.get("content") for p in parts if p.get("type") == "reasoning")]
    answers = message.get("tool_call_id") or next(_results(parts), None)
    media = message.get("media")
    return Turn(
        role=str(message.get("role", "")),
        content=said,
        reasoning="\n".join(t for t in thoughts if isinstance(t, str) and t),
        tools=tuple(map(_tool, calls)),
        answers=answers if isinstance(answers, str) else None,
        media=tuple(map(str, media)) if isinstance(media, list) else (),
    )


def _tool(call: Mapping[str, Any]) -> ToolUse:
    """Ours and OpenTelemetry's have the name beside the id, OpenAI's within `function`."""
    function = call.get("function")
    inner = function if isinstance(function, Mapping) else call
    return ToolUse(str(call.get("id") or ""), str(inner.get("name") or ""), _indented(inner.get("arguments")))


def _indented(arguments: Any) -> str:
    """JSON with a line for each field; what is no JSON as it is."""
    try:
        value = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        return str(arguments)
    return "" if value is None else orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


def _part_text(part: Mapping[str, Any]) -> str:
    """The text of a part: OpenAI's `text`, OpenTelemetry's `content`, or a tool's result."""
    if part.get("type") in ("reasoning", "tool_call"):
        return ""
    for name in ("text", "content", "response", "result"):
        value = part.get(name)
        if isinstance(value, str) and value:
            return value
        if value:
            return _indented(value)
    return ""


def _results(parts: list[Mapping[str, Any]]) -> Iterator[Any]:
    return (part.get("id") for part in parts if part.get("type") == "tool_call_response")


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
