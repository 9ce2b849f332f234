"""Why no target answered, as the client is told: the first cause, and every attempt.

InvalidInput
├── Unsupported                400 unsupported_parameter            no target can do what a field asks
└── PromptTooLong              400 context_length_exceeded          no target's context is long enough
TargetsFailed                  502 upstream_failed                  every attempt failed
├── UpstreamTimedOut           504 upstream_failed                  the first of them by its silence
├── NoTargetNow                503 upstream_failed                  all are out of service: none was tried
└── CredentialsExhausted       502 upstream_credentials_exhausted   every key was refused
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mainstay.core.errors import InvalidInput, MainstayError
from mainstay.models.capabilities import FIELD_OF
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
from mainstay.models.types import Capability
from mainstay.serving.errors import DeadlineExceeded, UpstreamFailed
from mainstay.serving.routing.retrying import unsent
from mainstay.serving.routing.types import Attempt

_OWN_FAULT = (ProviderBadRequest, ContextTooLong, ProviderModelMissing)
"""What the client can mend: it is told as it is."""


class Unsupported(InvalidInput):
    """`param` is the request field; `lacking` says for each target what it cannot do."""

    code = "unsupported_parameter"

    def __init__(self, name: str, lacking: Mapping[str, frozenset[Capability]]) -> None:
        each = {target: sorted(missing) for target, missing in lacking.items()}
        shared = sorted(frozenset.intersection(*lacking.values())) or sorted(
            frozenset.union(*lacking.values())
        )
        self.capability: Capability = shared[0]
        param = FIELD_OF.get(self.capability, self.capability)
        said = "; ".join(f"{target} lacks {', '.join(missing)}" for target, missing in each.items())
        super().__init__(
            f"{param}: no target of {name!r} can do what this request asks: {said}.",
            fix=f"Leave {param!r} out, or ask a model that supports it.",
            param=param,
            lacking=each,
        )


class PromptTooLong(InvalidInput):
    code = "context_length_exceeded"

    def __init__(self, name: str, input_tokens: int, max_tokens: int | None, context_tokens: int) -> None:
        answer = f" and {max_tokens} for the answer" if max_tokens else ""
        super().__init__(
            f"The prompt has about {input_tokens} tokens{answer}; the longest context of {name!r} is "
            f"{context_tokens} tokens.",
            fix="Send fewer or shorter messages, ask for a shorter answer, or use a model with a longer context.",
            param="messages",
            input_tokens=input_tokens,
            max_tokens=max_tokens,
            context_tokens=context_tokens,
        )


class TargetsFailed(UpstreamFailed):
    """`retry_after_s` is the shortest wait that a provider named."""

    retry_after_s: float | None = None


class UpstreamTimedOut(TargetsFailed):
    status = 504


class NoTargetNow(TargetsFailed):
    status = 503


class CredentialsExhausted(TargetsFailed):
    code = "upstream_credentials_exhausted"
    retryable = False

    def __init__(self, name: str, **detail: Any) -> None:
        super().__init__(
            f"No API key for {name!r} is accepted by its provider.",
            fix="An administrator must check the provider's keys and credit.",
            **detail,
        )


def deadline_exceeded(name: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{name!r} did not finish before the deadline.", fix="Ask for fewer tokens, or allow more time."
    )


def final_error(name: str, attempts: Sequence[Attempt]) -> MainstayError:
    """What to raise when no attempt is left: the first cause decides, all are listed. Needs a failed attempt."""
    errors = [attempt.error for attempt in attempts if attempt.error is not None]
    # What one target could not express says nothing of those that failed.
    errors = [error for error in errors if not unsent(error)] or errors
    first, listed = errors[0], attempts_detail(attempts)
    if all(isinstance(error, ProviderAuthFailed | ProviderQuotaExhausted) for error in errors):
        return CredentialsExhausted(name, attempts=listed)
    limited = all(isinstance(error, ProviderRateLimited) for error in errors)
    if limited or isinstance(first, _OWN_FAULT) or not isinstance(first, ProviderError):
        first.detail["attempts"] = listed
        if isinstance(first, ProviderRateLimited):
            first.retry_after_s = retry_after_s(errors)
        return first
    kind = UpstreamTimedOut if isinstance(first, ProviderTimeout) else TargetsFailed
    # The reason of an auth failure is the operator's to know; attempts name its code.
    failed = kind(
        f"{name!r} did not answer. First: {first.message}",
        fix=first.fix or "Send the request again.",
        cause=first.code,
        attempts=listed,
    )
    failed.retry_after_s = retry_after_s(errors)
    return failed


def broken_off(target: str, error: MainstayError, attempts: Sequence[Attempt]) -> UpstreamFailed:
    """The answer had begun: there is no other attempt."""
    return UpstreamFailed(
        f"{target} stopped in the middle of its answer. {error.message}",
        fix="Send the request again.",
        cause=error.code,
        attempts=attempts_detail(attempts),
    )


def retry_after_s(errors: Iterable[Exception]) -> float | None:
    waits = [e.retry_after_s for e in errors if isinstance(e, ProviderError) and e.retry_after_s is not None]
    return min(waits, default=None)


def attempts_detail(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """`[{target, code, status, ms}]`; code and status are None for an attempt that was cut off."""
    return [_detail(attempt) for attempt in attempts]


def _detail(attempt: Attempt) -> dict[str, Any]:
    error = attempt.error
    status = error.upstream_status or error.status if isinstance(error, ProviderError) else None
    if error is not None and status is None:
        status = error.status
    ended_s = attempt.ended_s
    target = attempt.target
    return {
        "target": f"{target.provider.name}/{target.model}",
        "credential": target.credential,
        "code": None if error is None else error.code,
        "status": status,
        "ms": None if ended_s is None else round((ended_s - attempt.started_s) * 1000, 1),
    }
