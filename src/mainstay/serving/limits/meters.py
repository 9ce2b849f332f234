"""Amounts per minute by the generic cell rate algorithm (GCRA, ITU-T I.371 annex A), as a continuous-state leaky
bucket: one number a limit, no timers.

A scope may use its whole minute at once; what it used drains evenly over the following minute. Whatever was
given back, from the first request on no more than `limit * (1 + minutes)` is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.core.clock import US_PER_S
from mainstay.serving.types import RateState

MINUTE_US = 60 * US_PER_S


class Meter:
    """What is used of one limit. `used` is in units times a minute's microseconds, so that it drains exactly."""

    __slots__ = ("at_us", "capacity", "limit", "since_us", "used")

    def __init__(self, limit: int, now_us: int) -> None:
        self.used = 0
        self.at_us = self.since_us = now_us
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        self.capacity = limit * MINUTE_US

    def drain(self, now_us: int) -> int:
        """Brings `used` up to date."""
        tightest((self,), now_us)
        return self.used

    def give_back(self, amount: int, now_us: int) -> None:
        """`amount` may be negative: more was used than was taken."""
        give_back((self,), amount, now_us)

    def wait_us(self, amount: int) -> int:
        """After `drain`: how long until `amount` more fits; at most 0 when it fits now."""
        if self.limit == 0:
            return MINUTE_US
        return -((self.capacity - self.used - amount * MINUTE_US) // self.limit)

    def state(self) -> RateState:
        """After `drain`."""
        remaining = (self.capacity - self.used) // MINUTE_US
        return RateState(
            self.limit, max(0, remaining), self.used / self.limit / US_PER_S if self.limit else 0.0
        )


def tightest(meters: Sequence[Meter], now_us: int) -> Meter | None:
    """Brings `used` of all of them up to date; the one with the least left, the first of equals.

    A clock set back drains nothing, and locks nobody out for it.
    """
    found: Meter | None = None
    least = 0
    for meter in meters:  # in one loop, without a call each: every request drains all its limits
        elapsed = now_us - meter.at_us
        meter.at_us = now_us
        used = meter.used
        if used and elapsed > 0:
            used -= elapsed * meter.limit
            meter.used = used = used if used > 0 else 0
        left = meter.capacity - used
        if found is None or left < least:
            found, least = meter, left
    return found


def give_back(meters: Sequence[Meter], amount: int, now_us: int) -> None:
    """`amount` to each of them; a negative one was used beyond what was taken."""
    if amount < 0:
        tightest(meters, now_us)  # only what is given back may as well be drained afterwards
    given = amount * MINUTE_US
    for meter in meters:
        used = meter.used - given
        meter.used = used if used > 0 else 0
