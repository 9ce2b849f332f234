"""What a refusal by the Gemini API means. Told apart by `google.rpc.Status`, its code and its details.

Source: Gemini API, "Troubleshooting"; Google Cloud, "Errors" (AIP-193) and `google/rpc/error_details.proto`, as of
2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderRateLimited,
    ProviderTimeout,
)
from mainstay.models.providers.refusals import kind_of_status, refusal, retry_after_s, seconds_of

_ERRORS: Final[Mapping[str, tuple[int, type[ProviderError]]]] = {
    "INVALID_ARGUMENT": (400, ProviderBadRequest),
    "FAILED_PRECONDITION": (400, ProviderBadRequest),
    "OUT_OF_RANGE": (400, ProviderBadRequest),
    "UNAUTHENTICATED": (401, ProviderAuthFailed),
    "PERMISSION_DENIED": (403, ProviderAuthFailed),
    "NOT_FOUND": (404, ProviderModelMissing),
    "ALREADY_EXISTS": (409, ProviderError),
    "ABORTED": (409, ProviderError),
    "RESOURCE_EXHAUSTED": (429, ProviderRateLimited),
    "CANCELLED": (499, ProviderError),
    "UNKNOWN": (500, ProviderError),
    "INTERNAL": (500, ProviderError),
    "DATA_LOSS": (500, ProviderError),
    "UNIMPLEMENTED": (501, ProviderBadRequest),
    "UNAVAILABLE": (503, ProviderError),
    "DEADLINE_EXCEEDED": (504, ProviderTimeout),
}
"""`google.rpc.Code` → its HTTP status, and what it is here."""

_KEY_REASONS: Final = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED"})
"""`ErrorInfo.reason`s of a wrong key, which come with status 400 and INVALID_ARGUMENT."""

_TOO_LONG: Final = ("The input token count", "Unable to submit request because the input token count is")
"""How the messages begin that tell of a prompt beyond the context window: the API has no code for it."""


def decode_error(provider: str, status: int | None, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The ProviderError of an error body. `status` None: it came inside a stream, and says its status itself."""
    error = _error_object(body)
    word = str(error.get("status") or "")
    known_status, kind = _ERRORS.get(word, (None, None))
    if status is None:
        code = error.get("code")
        status = known_status or (code if isinstance(code, int) else 500)
    return refusal(
        _finer(kind or kind_of_status(status), error),
        provider,
        status,
        error.get("message"),
        code=word or None,
        wait_s=_retry_delay_s(error) or retry_after_s(headers),
    )


def _finer(kind: type[ProviderError], error: Mapping[str, Any]) -> type[ProviderError]:
    if kind is not ProviderBadRequest:
        return kind
    if any(detail.get("reason") in _KEY_REASONS for detail in _details(error)):
        return ProviderAuthFailed
    return ContextTooLong if str(error.get("message")).startswith(_TOO_LONG) else kind


def _retry_delay_s(error: Mapping[str, Any]) -> float | None:
    """`RetryInfo.retryDelay`, a protobuf Duration in JSON: `12s`, `0.5s`."""
    for detail in _details(error):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return seconds_of(delay[:-1])
    return None


def _details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    details = error.get("details")
    yield from (item for item in details if isinstance(item, dict)) if isinstance(details, list) else ()


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(value, list) and value:  # a stream without alt=sse is a list, its error too
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}
