"""What an OpenAI-compatible provider's refusal means. Told apart by status and code, never by text.

Source: OpenAI API reference, "Error codes"; Azure OpenAI, "Content filtering"; OpenRouter, "Errors"; Groq,
"API error codes"; Anthropic's 529 is used by vendors that relay it; vLLM names `input_tokens` in `param`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_CONTEXT_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_FILTER_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "data_inspection_failed"}
)
_MESSAGE_CHARACTERS_MAX: Final = 300

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
    425: ProviderError,
    429: ProviderRateLimited,
    498: ProviderError,  # Groq: no capacity for the flexible tier now
    504: ProviderTimeout,
}


def decode_error(
    provider: str, status: int, body: bytes, headers: Mapping[str, str], hide: Sequence[str] = ()
) -> ProviderError:
    """The ProviderError for an HTTP status and body. Words of the provider are shown without what `hide` lists:
    our key and its address."""
    error = _error_object(body)
    codes = _codes(error)
    kind = _kind(status, codes, error)
    message = f"{provider} answered {status}: {_said(error, hide)}"
    if kind is ProviderAuthFailed:  # its text may hold parts of the key
        message = f"{provider} refused our key (status {status})."
    return kind(
        message,
        provider=provider,
        fix=_FIXES.get(kind),
        upstream_status=status,
        upstream_code=_upstream_code(error, codes),
        retry_after_s=retry_after_s(headers) if kind.retryable else None,
    )


def _said(error: Mapping[str, Any], hide: Sequence[str]) -> str:
    said = str(error.get("message") or "").strip()
    for secret in hide:
        said = said.replace(secret, "***") if secret else said
    return said[:_MESSAGE_CHARACTERS_MAX] or "no reason given"


def _codes(error: Mapping[str, Any]) -> frozenset[str]:
    inner = error.get("innererror")  # Azure says more precisely why in here
    found = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("flagged_input") is not None:
        found.append("content_filter")  # OpenRouter's refusal by moderation, status 403
    return frozenset(str(code) for code in found if code is not None)


def _upstream_code(error: Mapping[str, Any], codes: frozenset[str]) -> str | None:
    filtered = codes & _FILTER_CODES
    if filtered:
        return "content_filter"
    code = error.get("code") or error.get("type")
    return str(code)[:80] if code is not None else None


def _kind(status: int, codes: frozenset[str], error: Mapping[str, Any]) -> type[ProviderError]:
    if codes & _FILTER_CODES:
        return ProviderBadRequest
    if codes & _CONTEXT_CODES or (status == 400 and error.get("param") == "input_tokens"):
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
    if isinstance(value, list) and value:  # Google's OpenAI-compatible endpoint wraps its errors in a list
        value = value[0]
    error = value.get("error", value) if isinstance(value, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


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
