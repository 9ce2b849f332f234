"""Chat messages in spans: every shape they come in, to [{"role", "content" or "parts", …}], and to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mainstay.observe.types import AttributeValue
from mainstay.observe.values import json_of

Message = dict[str, Any]

_TEXT_KEYS = ("content", "text", "output", "answer", "response", "result", "completion")
_QUESTION_KEYS = ("question", "input", "query", "prompt")
_EVENT_ROLES: Mapping[str, str] = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "choice",
    "gen_ai.content.prompt": "user",
    "gen_ai.content.completion": "choice",
}
DETAILS_EVENT = "gen_ai.client.inference.operation.details"


def messages_of(value: Any, role: str) -> list[Message]:
    """Messages from a list, a JSON string, a request or response object, or plain text said by `role`."""
    found = json_of(value)
    if found is None:
        return [{"role": role, "content": value}] if isinstance(value, str) and value else []
    if isinstance(found, dict):
        return _from_object(found, role)
    return [_message(item, role) for item in found if isinstance(item, dict | str)]


def _from_object(found: Mapping[str, Any], role: str) -> list[Message]:
    if isinstance(found.get("messages"), list):
        return messages_of(found["messages"], role)
    if isinstance(found.get("choices"), list):  # a chat completion's response body
        return [_message(c.get("message") or c, role) for c in found["choices"] if isinstance(c, dict)]
    if "role" in found:
        return [_message(found, role)]
    for key in (*_QUESTION_KEYS, *_TEXT_KEYS):
        if isinstance(found.get(key), str):
            return [{"role": role, "content": found[key]}]
    return []


def _message(item: Any, role: str) -> Message:
    if isinstance(item, str):
        return {"role": role, "content": item}
    return {"role": role, **item}


def prefixed(attributes: Mapping[str, AttributeValue], prefixes: tuple[str, ...]) -> list[str]:
    return [key for key in attributes if key.startswith(prefixes)]


def indexed_messages(
    attributes: Mapping[str, AttributeValue], keys: Iterable[str], prefixes: tuple[str, ...], role: str
) -> list[Message]:
    """Messages spelled out as `prefix.N.role`, `prefix.N.content` (or `prefix.N.message.role` …), by N."""
    found: dict[int, Message] = {}
    for key in keys:
        rest = next(key[len(p) :] for p in prefixes if key.startswith(p))
        index, _, field = rest.partition(".")
        if index.isdigit():
            field = field.removeprefix("message.").removeprefix("prompt.")
            _set_field(found.setdefault(int(index), {"role": role}), field, attributes[key])
    return [found[index] for index in sorted(found)]


def _set_field(message: Message, field: str, value: AttributeValue) -> None:
    if field in ("role", "content", "text"):
        message["content" if field == "text" else field] = value
    elif field.startswith("contents.") and field.endswith("message_content.text"):
        message.setdefault("parts", []).append({"type": "text", "content": value})
    elif field:
        message[field] = value


def event_messages(events: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages sent as span events (conventions up to 1.36); answers have the role `choice`."""
    messages: list[Message] = []
    for event in events:
        name, attributes = event.get("name"), event.get("attributes") or {}
        if name == DETAILS_EVENT:
            messages += messages_of(attributes.get("gen_ai.input.messages"), "user")
            output = messages_of(attributes.get("gen_ai.output.messages"), "assistant")
            messages += [{**message, "role": "choice"} for message in output]
        elif name in _EVENT_ROLES:
            content = _event_content(attributes)
            if content:
                messages.append({"role": _EVENT_ROLES[str(name)], "content": content})
    return messages


def _event_content(attributes: Mapping[str, Any]) -> str:
    for key in ("content", "gen_ai.event.content", "message", "gen_ai.prompt", "gen_ai.completion", "body"):
        found = messages_of(attributes.get(key), "user")
        if found:
            return "\n".join(message_text(message) for message in found)
    return ""


def spoken_by(message: Mapping[str, Any], role: str) -> bool:
    return message.get("role") == role


def message_text(message: Any) -> str:
    """The text of a message: `content` as string or parts, or `parts`. Tool calls and media give none."""
    if isinstance(message, str):
        return message
    if not isinstance(message, Mapping):
        return ""
    if isinstance(message.get("message"), Mapping):
        return message_text(message["message"])
    content = message.get("content", message.get("parts", message.get("text")))
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(message_text, content)))
    return ""


def last_said(messages: Any, role: str) -> str:
    """The text of the last message of `role` that has text; empty when there is none."""
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == role:
            said = message_text(message)
            if said:
                return said
    return ""
