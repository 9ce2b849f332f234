"""Reads a chat completion request (OpenAI API reference, "Create chat completion") into the normal form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from mainstay.models.types import ChatCall, ChatMessage, Role
from mainstay.serving.errors import BadField
from mainstay.serving.types import ChatRequest

_ROLES = tuple(role for role in get_args(Role) if role != "tool")
_READ = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "n",
    "user",
    "metadata",
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # Values that ask for nothing, sent by some clients always: no reason to refuse them anywhere.
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "store": (False,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
}


_ROUTING = frozenset({"models", "fallbacks", "route", "provider", "preset", "plugins", "web_search_options"})
"""Fields of some vendors that put another model behind the name, or charge for more than tokens."""

NAME_CHARACTERS_MAX = 256
NESTING_MAX = 100
"""Of forwarded fields: what is deeper than some 250 levels could not be written as JSON again."""


def read_chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """Validate; raises BadField naming the field. Fields not known here end in `extra`."""
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("n", 1) != 1:
        raise BadField("n", "only 1 is supported.", fix="Send one request per answer you need.")
    _refuse_tools(given)
    for name in _ROUTING & given.keys():
        raise BadField(name, "is not supported: the model's name says who answers.", fix=f"Leave {name} out.")
    for name, value in given.items():
        if name not in ("messages", "stop") and _is_deep(value, NESTING_MAX):
            raise BadField(name, f"is nested more than {NESTING_MAX} levels deep.")
    call = ChatCall(
        model="",
        messages=_messages(given.get("messages")),
        max_tokens=_max_tokens(given),
        temperature=_number(given, "temperature", 0, 2),
        top_p=_number(given, "top_p", 0, 1),
        stop=_stop(given.get("stop")),
        seed=_whole(given, "seed", None),
        user=_text(given, "user") if "user" in given else None,
        extra={name: value for name, value in given.items() if name not in _READ},
    )
    return ChatRequest(
        model=_name(given),
        call=call,
        stream=_flag(given, "stream"),
        include_usage=_include_usage(given),
        metadata=_mapping(given, "metadata"),
    )


def refuse_extra(request: ChatRequest, what: str) -> None:
    """Raise BadField when the request asks for what `what` (an app, a local model) cannot do.

    Refused rather than ignored: an answer without the asked-for schema or tool would be wrong in silence.
    """
    for name, value in request.call.extra.items():
        if name in _NEUTRAL and value in _NEUTRAL[name]:
            continue
        raise BadField(name, f"{what} does not support this field.", fix=f"Leave {name} out.")


def _refuse_tools(given: Mapping[str, Any]) -> None:
    """Tool calls have no normal form yet: refused everywhere, as a model that is not heard is worse."""
    for name in ("tools", "tool_choice", "functions", "function_call"):
        if name in given and given[name] not in _NEUTRAL.get(name, ()):
            raise BadField(name, "tool calls are not supported.", fix=f"Leave {name} out.")


def _messages(value: object) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise BadField("messages", "must be a list of at least one message.")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(item: object, where: str) -> ChatMessage:
    if not isinstance(item, dict):
        raise BadField(where, "must be an object with role and content.")
    role = item.get("role")
    if role not in _ROLES:
        raise BadField(f"{where}.role", f"must be one of {', '.join(_ROLES)}; got {role!r}.")
    for name in ("tool_calls", "tool_call_id", "function_call", "audio"):
        if item.get(name) is not None:
            raise BadField(f"{where}.{name}", "is not supported: messages hold text only.")
    return ChatMessage(cast(Role, role), _content(item.get("content"), f"{where}.content"))


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadField(where, "must be a string or a list of text parts.")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict):
        raise BadField(where, "must be an object with type and text.")
    if part.get("type") != "text":
        raise BadField(
            f"{where}.type",
            f"{part.get('type')!r} is not supported: messages hold text only.",
            fix="Send the content as text.",
        )
    if not isinstance(part.get("text"), str):
        raise BadField(f"{where}.text", "must be a string.")
    return cast(str, part["text"])


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadField(name, "must be a string that is not empty.")
    return value


def _is_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(item, levels - 1) for item in inner)


def _name(given: Mapping[str, Any]) -> str:
    name = _text(given, "model")
    if len(name) > NAME_CHARACTERS_MAX:
        raise BadField("model", f"has {len(name)} characters; a name has {NAME_CHARACTERS_MAX} at most.")
    return name


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise BadField(name, "must be true or false.")
    return value


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise BadField(name, "must be an object.")
    return value


def _include_usage(given: Mapping[str, Any]) -> bool:
    options = _mapping(given, "stream_options")
    wanted = options.get("include_usage") or False
    if not isinstance(wanted, bool):
        raise BadField("stream_options.include_usage", "must be true or false.")
    return wanted


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    newer = _whole(given, "max_completion_tokens", 1)
    return newer if newer is not None else _whole(given, "max_tokens", 1)


def _whole(given: Mapping[str, Any], name: str, low: int | None) -> int | None:
    if name not in given:
        return None
    value = given[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadField(name, "must be a whole number.")
    if low is not None and value < low:
        raise BadField(name, f"must be at least {low}.")
    return value


def _number(given: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    if name not in given:
        return None
    value = given[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadField(name, "must be a number.")
    if not low <= value <= high:
        raise BadField(name, f"must be from {low} to {high}.")
    return float(value)


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise BadField("stop", "must be a string or a list of up to 4 strings.")
    return tuple(stops)
