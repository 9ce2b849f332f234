"""What an OpenAI-compatible provider's refusal means. Told apart by status and code, never by text.

Source: OpenAI API reference, "Error codes"; Azure OpenAI, "Content filtering"; OpenRouter, "Errors"; Groq,
"API error codes"; Anthropic's 529 is used by vendors that relay it; vLLM names `input_tokens` in `param`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mainstay.models.errors import ContextTooLong, ProviderBadRequest, ProviderError, ProviderQuotaExhausted
from mainstay.models.providers.refusals import kind_of_status, refusal, retry_after_s

_CONTEXT_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_FILTER_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "data_inspection_failed"}
)
_NO_CAPACITY_STATUS: Final = 498
"""Groq: no capacity for the flexible tier now."""


def decode_error(provider: str, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The ProviderError for an HTTP status and body."""
    error = _error_object(body)
    codes = _codes(error)
    return refusal(
        _kind(status, codes, error),
        provider,
        status,
        error.get("message"),
        code=_upstream_code(error, codes),
        wait_s=retry_after_s(headers),
    )


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
    return str(code) if code is not None else None


def _kind(status: int, codes: frozenset[str], error: Mapping[str, Any]) -> type[ProviderError]:
    if codes & _FILTER_CODES:
        return ProviderBadRequest
    if codes & _CONTEXT_CODES or (status == 400 and error.get("param") == "input_tokens"):
        return ContextTooLong
    if codes & _QUOTA_CODES:
        return ProviderQuotaExhausted
    return ProviderError if status == _NO_CAPACITY_STATUS else kind_of_status(status)


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
