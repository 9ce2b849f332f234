"""Errors as OpenAI SDKs know them: `{"error": {message, type, param, code, mainstay}}`, with true status codes.

    MainstayError
    ├── PermissionDenied
    │   └── ModelNotAllowed        403 model_not_allowed
    ├── NotFound
    │   └── ModelNotFound          404 model_not_found
    ├── InvalidInput
    │   ├── BadField               400 invalid_request_error      `param` names the field
    │   ├── RequestExceedsBudget   400 request_exceeds_budget     one request dearer than the whole budget
    │   ├── RequestExceedsTokenLimit 400 request_exceeds_token_limit  more tokens than a whole minute allows
    │   ├── PriceUnknown           400 price_unknown              a budget cannot be kept without a price
    │   └── ContentBlocked         400 content_policy_violation
    ├── InsufficientQuota          429 insufficient_quota         the budget's window is spent: do not retry
    ├── BudgetInFlight             429 budget_in_flight           the rest is held by running requests
    ├── RateLimited                429 rate_limit_exceeded        requests per minute
    ├── TokensLimited              429 rate_limit_exceeded        tokens per minute
    ├── TooManyAtOnce              429 rate_limit_exceeded        concurrent requests
    ├── Unavailable
    │   ├── BudgetStoreUnavailable 503 budget_store_unavailable   budgets cannot be kept now, so nothing is spent
    │   └── ShuttingDown           503 shutting_down              this process ends; another may answer
    ├── UpstreamFailed             502 upstream_failed
    └── DeadlineExceeded           504 deadline_exceeded

`x-should-retry` and `retry-after` are what the official SDKs obey.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mainstay.core.errors import (
    InvalidInput,
    MainstayError,
    NotFound,
    PermissionDenied,
    Unavailable,
    did_you_mean,
)
from mainstay.models import ProviderAuthFailed, ProviderError, ProviderQuotaExhausted
from mainstay.serving.types import RateState

log = logging.getLogger(__name__)


class ModelNotAllowed(PermissionDenied):
    code = "model_not_allowed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"This key may not use {name!r}.",
            fix="Ask an administrator for a key with this name in its models.",
            param="model",
        )


class ModelNotFound(NotFound):
    code = "model_not_found"

    def __init__(self, name: str, visible: Sequence[str], fix: str | None = None) -> None:
        super().__init__(
            f"No app, route or model is called {name!r}.",
            fix=fix or did_you_mean(name, visible),
            param="model",
        )


class BadField(InvalidInput):
    """A request field is wrong; `param` is its path, e.g. `messages[2].content`."""

    def __init__(self, param: str, problem: str, *, fix: str | None = None) -> None:
        super().__init__(f"{param}: {problem}", fix=fix, param=param)


class RequestExceedsBudget(InvalidInput):
    code = "request_exceeds_budget"


class RequestExceedsTokenLimit(InvalidInput):
    code = "request_exceeds_token_limit"


class PriceUnknown(InvalidInput):
    code = "price_unknown"


class ContentBlocked(InvalidInput):
    code = "content_policy_violation"


class _TooMany(MainstayError):
    status, type = 429, "rate_limit_error"

    def __init__(
        self, message: str, *, retry_after_s: float | None, fix: str | None = None, **detail: Any
    ) -> None:
        super().__init__(message, fix=fix, **detail)
        self.retry_after_s = retry_after_s


class InsufficientQuota(_TooMany):
    code, type = "insufficient_quota", "insufficient_quota"


class BudgetInFlight(_TooMany):
    code = "budget_in_flight"


class RateLimited(_TooMany):
    code = "rate_limit_exceeded"
    rate: RateState | None = None


class TokensLimited(_TooMany):
    code = "rate_limit_exceeded"
    token_rate: RateState | None = None


class TooManyAtOnce(_TooMany):
    code = "rate_limit_exceeded"


class BudgetStoreUnavailable(Unavailable):
    """Budgets cannot be read or written now; a hard one is never spent unseen."""

    code = "budget_store_unavailable"
    retry_after_s = 1.0


class ShuttingDown(Unavailable):
    """This process is ending: it takes no new requests, or could not finish this one in time."""

    code = "shutting_down"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            "This gateway is shutting down.", fix="Send the request again; another process may answer it."
        )


class UpstreamFailed(MainstayError):
    status, code, type = 502, "upstream_failed", "upstream_error"


class DeadlineExceeded(MainstayError):
    status, code, type = 504, "deadline_exceeded", "upstream_error"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as it goes over the wire; `body` also serves as a stream's error event."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def reply_to(error: Exception, trace_id: str | None = None, request_id: str | None = None) -> ErrorReply:
    """The reply to any error. What nobody foresaw is logged with its id and says nothing of its inside."""
    if not isinstance(error, MainstayError):
        error = _unforeseen(error)
    detail = dict(error.detail)
    param = detail.pop("param", None)
    kind, code = _shape(error)
    # OpenAI SDKs show only `message`, so it says how to mend it, too.
    said = {"fix": error.fix, "error_id": error.error_id, "trace_id": trace_id, **detail}
    if request_id is not None:
        said["request_id"] = request_id
    body = {"message": str(error), "type": kind, "param": param, "code": code, "mainstay": said}
    return ErrorReply(error.status, {"error": body}, _headers(error, code))


def _unforeseen(error: Exception) -> MainstayError:
    shown = MainstayError(
        "Mainstay failed to answer this request.", fix="The log has the cause under this error_id."
    )
    log.error("request failed: %s", shown.error_id, exc_info=error)
    return shown


def _shape(error: MainstayError) -> tuple[str, str]:
    """(type, code). A caller must never mistake the gateway's own credentials for its own."""
    if isinstance(error, ProviderAuthFailed | ProviderQuotaExhausted):
        return "upstream_error", "upstream_credentials_exhausted"
    if isinstance(error, ProviderError) and error.type == "server_error":
        return "upstream_error", error.code
    return error.type, error.code


def _headers(error: MainstayError, code: str) -> dict[str, str]:
    retryable: bool = getattr(error, "retryable", error.status >= 429 and code not in _FINAL)
    headers = {"x-should-retry": "true" if retryable else "false"}
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retryable and retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(retry_after_s * 1000)))
    return headers


_FINAL = {"insufficient_quota", "internal_error", "missing_extra"}
"""Codes of 429 and above after which the same request cannot succeed."""
