"""What the refusals of all vendors have in common: their words, what mends them, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

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

_MESSAGE_CHARACTERS_MAX: Final = 300
_CODE_CHARACTERS_MAX: Final = 80
WAIT_S_MAX: Final = 86_400 * 366

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
    499: ProviderError,
    504: ProviderTimeout,
}
_FIXES: Final[Mapping[type[ProviderError], str]] = {
    ProviderAuthFailed: "Check the provider's API key or token and what it is allowed to do.",
    ProviderQuotaExhausted: "Add credit or raise the spend limit at the provider, or route to another one.",
    ContextTooLong: "Send fewer or shorter messages and passages, or use a model with a longer context.",
}


def kind_of_status(status: int) -> type[ProviderError]:
    """What a status says by itself, when no code of the vendor's says more."""
    return _BY_STATUS.get(status, ProviderBadRequest if 400 <= status < 500 else ProviderError)


def refusal(
    kind: type[ProviderError],
    provider: str,
    status: int,
    said: object,
    *,
    code: str | None = None,
    fix: str | None = None,
    wait_s: float | None = None,
) -> ProviderError:
    """The error that tells of a refusal. `said`: the vendor's words, if any; `code`: its name for the case;
    `wait_s`: how long it asks to wait, kept for what may be tried again; `fix`: better than what is usual."""
    code = code[:_CODE_CHARACTERS_MAX] if code else None
    words = str(said or "").strip()[:_MESSAGE_CHARACTERS_MAX]
    message = f"{provider} answered {status}: {words or 'no reason given'}"
    if kind is ProviderAuthFailed:  # its words may hold parts of the key
        message = f"{provider} refused our key (status {status}{f', {code}' if code else ''})."
    return kind(
        message,
        provider=provider,
        fix=fix or _FIXES.get(kind),
        upstream_status=status,
        upstream_code=code,
        retry_after_s=wait_s if kind.retryable else None,
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait from `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3)."""
    milliseconds = seconds_of(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After") or headers.get("retry-after")
    seconds = seconds_of(text)
    if seconds is not None or text is None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(tz=UTC)).total_seconds())


def seconds_of(text: str | None) -> float | None:
    """The number in `text`; None when there is none, or no wait that can be meant."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < WAIT_S_MAX else None
