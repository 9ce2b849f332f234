"""What a failure says about the next attempt: the same target again, another one, or none."""

from __future__ import annotations

import random
from typing import Final, Literal

from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderTimeout,
)

BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 4.0
RETRY_AFTER_S_MAX: Final = 5.0
"""A provider that asks for a longer wait is not waited for: another target, or its error to the client."""

Next = Literal["again", "elsewhere", "longer", "never"]
"""`again`: the same target may be tried, too. `longer`: only a target with a longer context."""

_RETRIED_STATUS: Final = frozenset({408, 409, 425, 429})


def what_next(error: Exception) -> Next:
    """By type and status, never by message (RFC 9110 §9.2.2, §15.5, §15.6).

    A silent target is left, not asked again. A model missing at one target may be there at the next, and what one
    adapter cannot say another may. What a provider or a guard refuses for its content or form is refused: nothing
    is routed around.
    """
    if isinstance(error, ContextTooLong):
        return "longer"
    if isinstance(error, ProviderAuthFailed | ProviderQuotaExhausted | ProviderModelMissing) or unsent(error):
        return "elsewhere"
    if isinstance(error, ProviderTimeout):
        return "elsewhere" if error.upstream_status is None else "again"
    if not isinstance(error, ProviderError):
        return "never"
    if error.upstream_status in _RETRIED_STATUS:  # also 409, whatever an adapter makes of it
        return "again"
    refused = error.upstream_status is not None and 400 <= error.upstream_status < 500
    return "never" if refused or isinstance(error, ProviderBadRequest) or not error.retryable else "again"


def unsent(error: Exception) -> bool:
    """Whether the adapter refused a call that its wire format cannot express; its provider never saw it."""
    return isinstance(error, ProviderBadRequest) and error.upstream_status is None


def backoff_s(failures: int, chance: random.Random) -> float:
    """Full jitter (AWS Architecture Blog, 2015): uniform up to 0.5, 1, 2, 4 s."""
    return chance.uniform(0.0, min(BACKOFF_S_MAX, BACKOFF_S * 2**failures))
