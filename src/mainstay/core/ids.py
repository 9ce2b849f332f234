"""Identifiers that sort by time (UUIDv7, RFC 9562 §5.7), alone or with a prefix that names the kind."""

from __future__ import annotations

import os
import threading
import time


class _Bits:
    """Random bits from the operating system, fetched for many identifiers at once: a system call each is slow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._forget)

    def next64(self) -> int:
        with self._lock:
            if self._at + 8 > len(self._pool):
                self._pool, self._at = os.urandom(4096), 0
            self._at += 8
            return int.from_bytes(self._pool[self._at - 8 : self._at], "big")

    def _forget(self) -> None:
        """A forked process must not give out the identifiers of its parent."""
        self._lock = threading.Lock()
        self._pool = b""


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
_bits = _Bits()


def uuid7_hex() -> str:
    """A UUIDv7 as 32 lower-case hex digits; strictly increasing within this process."""
    ticks = _ticks.next()
    value = (ticks >> 12 << 80) | (0x7 << 76) | ((ticks & 0xFFF) << 64) | (0b10 << 62)
    return f"{value | (_bits.next64() >> 2):032x}"


def new_id(prefix: str) -> str:
    """`prefix_` followed by a UUIDv7, e.g. `key_0193…`."""
    return f"{prefix}_{uuid7_hex()}"


def new_trace_id() -> str:
    """A W3C trace id (32 hex digits) that also sorts by time."""
    return uuid7_hex()


def new_span_id() -> str:
    """A W3C span id: 16 hex digits, never all zero."""
    return f"{_bits.next64() or 1:016x}"
