"""Requests per minute by the generic cell rate algorithm (GCRA, ITU-T I.371): one number a key, no timers.

A key may use its whole minute at once; what it used comes back evenly over the following minute.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.govern.types import ApiKey
from mainstay.serving.errors import RateLimited
from mainstay.serving.types import RateState

_MINUTE_US = 60 * US_PER_S


class RateLimiter:
    """Safe from any thread; forgets the keys longest unused above `limit_keys`."""

    def __init__(self, clock: Clock = now_us, limit_keys: int = 100_000) -> None:
        self._clock = clock
        self._limit_keys = limit_keys
        self._lock = threading.Lock()
        self._full_at_us: OrderedDict[str, int] = OrderedDict()

    def take(self, key: ApiKey | None) -> RateState | None:
        """Count one request. Raises RateLimited (429) with the wait; None when the key has no limit."""
        if key is None or key.requests_per_minute is None:
            return None
        limit = key.requests_per_minute
        step_us = max(1, _MINUTE_US // limit)
        with self._lock:
            now = self._clock()
            # A clock set back must not lock a key out: never owe more than a minute.
            full_at = min(max(now, self._full_at_us.get(key.id, now)), now + _MINUTE_US)
            wait_us = full_at + step_us - now - step_us * limit
            if wait_us > 0:
                self._full_at_us[key.id] = full_at
                raise _limited(limit, wait_us, full_at - now)
            self._full_at_us[key.id] = full_at + step_us
            self._full_at_us.move_to_end(key.id)
            while len(self._full_at_us) > self._limit_keys:
                self._full_at_us.popitem(last=False)
        used_us = full_at + step_us - now
        return RateState(limit, (step_us * limit - used_us) // step_us, used_us / US_PER_S)


def rate_headers(state: RateState) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(state.limit),
        "x-ratelimit-remaining-requests": str(state.remaining),
        "x-ratelimit-reset-requests": f"{state.reset_s:.3f}s",
    }


def _limited(limit: int, wait_us: int, owed_us: int) -> RateLimited:
    error = RateLimited(
        f"This key may send {limit} requests per minute.",
        fix=f"Wait {wait_us / US_PER_S:.1f} s, or ask an administrator for a higher limit.",
        retry_after_s=wait_us / US_PER_S,
    )
    error.rate = RateState(limit, 0, owed_us / US_PER_S)
    return error
