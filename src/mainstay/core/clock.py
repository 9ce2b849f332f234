"""Time as UTC integers: `*_at_us` is microseconds since 1970, `*_ns` nanoseconds. Passed in, so tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Returns the current time in microseconds since 1970-01-01 UTC."""

US_PER_S = 1_000_000


def now_us() -> int:
    """The wall clock, microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


def to_datetime(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / US_PER_S, tz=UTC)


def to_iso(at_us: int) -> str:
    """RFC 3339 with milliseconds and Z, e.g. `2026-11-24T10:08:00.000Z`."""
    return to_datetime(at_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")
