"""The OpenAI chat-completions wire format: requests out, events and errors in. Pure functions.

Source: OpenAI API reference, "Chat", as also spoken by vLLM, SGLang, Ollama, LM Studio, Groq,
Mistral, Together, DeepSeek and OpenRouter. Errors are told apart by status and `error.code`, never by text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
)
from mainstay.models.types import ChatCall, Delta, FinishReason, Usage

_OWN_FIELDS: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
"""Fields that `extra` may not set: we own them."""

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_MESSAGE_CHARACTERS_MAX: Final = 300


class MalformedEvent(ValueError):
    """An event that is no JSON object of the expected shape."""


class InBandError(Exception):
    """The provider reported an error inside a stream that had begun with status 200."""

    def __init__(self, status: int | None, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def encode(call: ChatCall, max_tokens_field: str) -> bytes:
    """The request body; always streamed, usage always asked for."""
    body: dict[str, Any] = {k: v for k, v in call.extra.items() if k not in _OWN_FIELDS}
    body["model"] = call.model
    body["messages"] = [{"role": m.role, "content": m.content} for m in call.messages]
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    optional = {
        max_tokens_field: call.max_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stop": list(call.stop) or None,
        "seed": call.seed,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    return orjson.dumps(body)


def decode_event(data: str) -> Delta | None:
    """One event's delta; None when it says nothing new. Raises MalformedEvent and InBandError."""
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent(f"not JSON: {data[:80]!r}") from error
    return decode_chunk(event)


def decode_chunk(event: object) -> Delta | None:
    """As decode_event, from the decoded JSON."""
    if not isinstance(event, dict):
        raise MalformedEvent(f"no JSON object: {str(event)[:80]!r}")
    if event.get("object") == "error":  # vLLM puts the error's fields at the top
        event = {"error": event}
    if event.get("error"):
        raise InBandError(_error_status(event["error"]), orjson.dumps(event))
    choices = event.get("choices") or []
    usage = decode_usage(event.get("usage") or _groq_usage(event))
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise MalformedEvent(f"choices are no list of objects: {str(event)[:80]!r}")
    text, finish = _first_choice(choices)
    if not text and finish is None and usage is None:
        return None
    return Delta(text=text, finish_reason=finish, usage=usage)


def _first_choice(choices: list[dict[str, Any]]) -> tuple[str, FinishReason | None]:
    if not choices:
        return "", None
    delta = choices[0].get("delta") or {}
    if not isinstance(delta, dict):
        raise MalformedEvent(f"a delta is no object: {str(delta)[:80]!r}")
    text = _text(delta.get("content")) + _text(delta.get("refusal"))
    reason = choices[0].get("finish_reason")
    return text, None if reason is None else _FINISH.get(str(reason), "stop")


def _text(content: object) -> str:
    """A string, or the text parts of a list of parts (Mistral)."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _groq_usage(event: Mapping[str, Any]) -> object:
    extension = event.get("x_groq")
    return extension.get("usage") if isinstance(extension, dict) else None


def decode_usage(usage: object) -> Usage | None:
    """Normal form of a `usage` object; None when it is absent or has no counts."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    cached = cached or _count(usage, "prompt_cache_hit_tokens") or 0  # DeepSeek
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=min(cached, prompt),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def _count(details: object, name: str) -> int | None:
    """A count of tokens; None when absent, or when it cannot be one: below zero it would pay money back."""
    value = details.get(name) if isinstance(details, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def decode_error(provider: str, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The ProviderError for an HTTP status and body."""
    error = _error_object(body)
    codes = {str(error.get("code")), str(error.get("type"))}
    kind = _kind(status, codes)
    said = str(error.get("message") or "").strip()[:_MESSAGE_CHARACTERS_MAX]
    message = f"{provider} answered {status}: {said or 'no reason given'}"
    if kind is ProviderAuthFailed:  # its text may hold parts of the key
        message = f"{provider} refused our key (status {status})."
    return kind(
        message,
        provider=provider,
        fix=_FIXES.get(kind),
        upstream_status=status,
        retry_after_s=retry_after_s(headers) if kind.retryable else None,
    )


_FIXES: Final[Mapping[type[ProviderError], str]] = {
    ProviderAuthFailed: "Check the provider's API key and what it is allowed to do.",
    ProviderQuotaExhausted: "Add credit at the provider, or route to another one.",
    ContextTooLong: "Send fewer or shorter messages and passages, or use a model with a longer context.",
}
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: ProviderAuthFailed,
    402: ProviderQuotaExhausted,
    403: ProviderAuthFailed,
    404: ProviderModelMissing,
    408: ProviderTimeout,
    409: ProviderError,
    413: ContextTooLong,
    429: ProviderRateLimited,
    504: ProviderTimeout,
}


def _kind(status: int, codes: set[str]) -> type[ProviderError]:
    if codes & _CONTEXT_CODES:
        return ContextTooLong
    if codes & _QUOTA_CODES:
        return ProviderQuotaExhausted
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ProviderBadRequest if 400 <= status < 500 else ProviderError


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _error_status(error: object) -> int | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait from `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After") or headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(tz=UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 86_400 * 366 else None
