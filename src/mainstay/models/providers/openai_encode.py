"""Chat calls as OpenAI chat-completions request bodies. Pure functions.

Source: OpenAI API reference, "Create chat completion"; where vendors differ, `Dialect` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import orjson

from mainstay.core.errors import ConfigError, did_you_mean
from mainstay.core.secret import Secret
from mainstay.models.capabilities import has_cache_marks
from mainstay.models.errors import ProviderBadRequest
from mainstay.models.providers.translation import inline_data, refused
from mainstay.models.types import (
    ChatCall,
    ChatMessage,
    MediaPart,
    Part,
    Reasoning,
    ResponseFormat,
    TextPart,
    Tool,
    ToolChoice,
)

MAX_TOKENS_FIELDS: Final = frozenset({"max_tokens", "max_completion_tokens"})
_OWN_FIELDS: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
"""Fields that `extra` may not set: we own them."""

_AUDIO_FORMATS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_EFFORT_OF_BUDGET: Final = ((4096, "low"), (16384, "medium"))
"""A budget of thinking tokens up to so many is this effort, a larger one `high`."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a vendor's requests differ from OpenAI's. Each is a key of a provider's `options`, `true` or `false` or a name.

    `developer_role`: knows the role `developer`; else such messages are sent as `system`. `stream_usage`: takes
    `stream_options.include_usage`. `cache_control`: takes Anthropic's cache marks on text parts.
    `reasoning_field`: the name of the field of an assistant message that takes its reasoning back, if any.
    `seed_field`: what `seed` is called.
    """

    developer_role: bool = False
    stream_usage: bool = True
    cache_control: bool = False
    reasoning_field: str | None = None
    seed_field: str = "seed"

    @classmethod
    def of(cls, provider: str, options: Mapping[str, str | Secret], base: Dialect) -> Dialect:
        """`base` with the options of a provider. Raises ConfigError for an option that is unknown or no text."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        for name, value in options.items():
            if name not in known or not isinstance(value, str):
                raise ConfigError(
                    f"Provider {provider!r} has no option {name!r}.", fix=did_you_mean(name, known)
                )
            is_word = name in ("reasoning_field", "seed_field")
            given[name] = value if is_word else value.lower() in ("true", "yes", "1")
        return replace(base, **given)


class Encoder:
    """Writes requests for one provider."""

    def __init__(self, provider: str, max_tokens_field: str, dialect: Dialect) -> None:
        self._provider = provider
        self._max_tokens_field = max_tokens_field
        self._dialect = dialect

    def encode(self, call: ChatCall, *, stream: bool) -> bytes:
        """The request body. A client's own body goes as it is but for model, stream and the limit of tokens.

        Raises ProviderBadRequest naming a field that this wire format cannot express.
        """
        if call.source is not None and call.source_format == "openai.chat":
            body = self._from_source(call, call.source)
        else:
            body = self._built(call)
        body["model"] = call.model
        if call.max_tokens is not None:
            body[self._max_tokens_field] = call.max_tokens
        asked = body.pop("stream_options", None)
        body.pop("stream", None)
        if stream:
            body["stream"] = True
            if self._dialect.stream_usage:
                body["stream_options"] = {**(asked or {}), "include_usage": True}
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)

    def _from_source(self, call: ChatCall, source: Mapping[str, Any]) -> dict[str, Any]:
        body = dict(source)
        if not MAX_TOKENS_FIELDS.isdisjoint(body):
            limits = [body.pop(name) for name in MAX_TOKENS_FIELDS if name in body]
            if call.max_tokens is None:
                body[self._max_tokens_field] = next((limit for limit in limits if limit is not None), None)
        if "seed" in body and self._dialect.seed_field != "seed":
            body[self._dialect.seed_field] = body.pop("seed")
        if not self._dialect.developer_role:
            body["messages"] = _without_developers(body.get("messages") or [])
        if not self._dialect.cache_control and has_cache_marks(call):
            for name in ("messages", "tools"):
                if name in body:
                    body[name] = _without_marks(body[name])
        return body

    def _built(self, call: ChatCall) -> dict[str, Any]:
        body = {name: value for name, value in call.extra.items() if name not in _OWN_FIELDS}
        if call.max_tokens is not None:
            for name in MAX_TOKENS_FIELDS:
                body.pop(name, None)
        body["messages"] = [self._message(message, at) for at, message in enumerate(call.messages)]
        body.update((name, value) for name, value in _sampling(call).items() if value is not None)
        if call.seed is not None:
            body[self._dialect.seed_field] = call.seed
        if call.tools:
            body["tools"] = [_tool(tool) for tool in call.tools]
            if call.parallel_tool_calls is not None:
                body["parallel_tool_calls"] = call.parallel_tool_calls
        if call.tool_choice is not None:
            body["tool_choice"] = _tool_choice(call.tool_choice)
        if call.response_format is not None:
            body["response_format"] = _response_format(call.response_format)
        return body

    def _message(self, message: ChatMessage, at: int) -> dict[str, Any]:
        role = message.role
        if role == "developer" and not self._dialect.developer_role:
            role = "system"
        written: dict[str, Any] = {"role": role, "content": self._content(message, at)}
        if message.name is not None:
            written["name"] = message.name
        if message.tool_calls:
            written["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in message.tool_calls
            ]
            written["content"] = written["content"] or None
        if role == "tool":
            written["tool_call_id"] = message.tool_call_id
        if message.thinking and self._dialect.reasoning_field is not None:
            written[self._dialect.reasoning_field] = "".join(block.text for block in message.thinking)
        return written

    def _content(self, message: ChatMessage, at: int) -> str | list[dict[str, Any]]:
        if not message.parts:
            return f"Error: {message.content}" if message.is_error else message.content
        parts = [
            self._part(part, message, f"messages[{at}].content[{n}]") for n, part in enumerate(message.parts)
        ]
        return [{"type": "text", "text": "Error:"}, *parts] if message.is_error else parts

    def _part(self, part: Part, message: ChatMessage, field: str) -> dict[str, Any]:
        if isinstance(part, TextPart):
            written: dict[str, Any] = {"type": "text", "text": part.text}
            if part.cache is not None and self._dialect.cache_control:
                written["cache_control"] = {"type": "ephemeral", "ttl": part.cache.ttl}
            return written
        if message.role != "user":
            raise self._cannot(field, f"takes {part.kind}s in user messages only")
        if part.kind == "image":
            return self._image(part, field)
        return self._audio(part, field) if part.kind == "audio" else self._file(part, field)

    def _image(self, part: MediaPart, field: str) -> dict[str, Any]:
        url = part.url
        if part.data is not None:
            url = f"data:{part.media_type or 'image/png'};base64,{part.data}"
        if url is None:
            raise self._cannot(field, "takes images by URL or as data, not by file id")
        image = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": image}

    def _audio(self, part: MediaPart, field: str) -> dict[str, Any]:
        media_type, data = inline_data(part) or (None, None)
        form = _AUDIO_FORMATS.get(media_type or "")
        if data is None or form is None:
            raise self._cannot(field, "takes audio as WAV or MP3 data only")
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}

    def _file(self, part: MediaPart, field: str) -> dict[str, Any]:
        if part.file_id is not None:
            return {"type": "file", "file": {"file_id": part.file_id}}
        media_type, data = inline_data(part) or (None, None)
        if data is None:
            raise self._cannot(field, "takes files by id or as data, not by URL")
        url = f"data:{media_type or 'application/pdf'};base64,{data}"
        return {"type": "file", "file": {"filename": part.name or "file.pdf", "file_data": url}}

    def _cannot(self, field: str, what: str) -> ProviderBadRequest:
        return refused(self._provider, field, what)


def _without_developers(messages: list[Any]) -> list[Any]:
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "developer":
            return [_as_system(message) for message in messages]
    return messages


def _as_system(message: Any) -> Any:
    if isinstance(message, dict) and message.get("role") == "developer":
        return {**message, "role": "system"}
    return message


def _without_marks(value: Any) -> Any:
    """Messages or tools without `cache_control`, which servers that do not know it refuse."""
    if isinstance(value, list):
        return [_without_marks(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = ("content", "function")
    return {
        name: _without_marks(item) if name in inner else item
        for name, item in value.items()
        if name != "cache_control"
    }


def _sampling(call: ChatCall) -> dict[str, Any]:
    return {
        "temperature": call.temperature,
        "top_p": call.top_p,
        "top_k": call.top_k,
        "stop": list(call.stop) or None,
        "n": call.n if call.n > 1 else None,
        "reasoning_effort": None if call.reasoning is None else _effort(call.reasoning),
        "logprobs": True if call.logprobs else None,
        "top_logprobs": call.top_logprobs if call.logprobs else None,
        "frequency_penalty": call.frequency_penalty,
        "presence_penalty": call.presence_penalty,
        "logit_bias": None if call.logit_bias is None else dict(call.logit_bias),
        "user": call.user,
    }


def _effort(reasoning: Reasoning) -> str | None:
    if reasoning.effort is not None or not reasoning.budget_tokens:
        return reasoning.effort
    for budget, effort in _EFFORT_OF_BUDGET:
        if reasoning.budget_tokens <= budget:
            return effort
    return "high"


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = dict(tool.parameters)
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": dict(wanted.schema)}
    if wanted.description is not None:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}
