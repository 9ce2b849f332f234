"""Identifiers that sort by time (UUIDv7, RFC 9562 §5.7), alone or with a prefix that names the kind."""

from __future__ import annotations

import os
import threading
import time


class _Ticks:
    """(millisecond, counter) pairs that only rise; the counter has 12 bits (RFC 9562 §6.2, method 1)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Milliseconds since 1970 in the upper bits, the counter in the lower 12."""
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << 12)
            return self._last


_ticks = _Ticks()


def uuid7_hex() -> str:
    """A UUIDv7 as 32 lower-case hex digits; strictly increasing within this process."""
    ticks = _ticks.next()
    value = (ticks >> 12 << 80) | (0x7 << 76) | ((ticks & 0xFFF) << 64) | (0b10 << 62)
    return f"{value | (int.from_bytes(os.urandom(8), 'big') >> 2):032x}"


def new_id(prefix: str) -> str:
    """`prefix_` followed by a UUIDv7, e.g. `key_0193…`."""
    return f"{prefix}_{uuid7_hex()}"


def new_trace_id() -> str:
    """A W3C trace id (32 hex digits) that also sorts by time."""
    return uuid7_hex()


def new_span_id() -> str:
    """A W3C span id: 16 hex digits, never all zero."""
    return f"{int.from_bytes(os.urandom(8), 'big') or 1:016x}"
