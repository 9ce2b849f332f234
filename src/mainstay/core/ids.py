"""Identifiers that sort by time (UUIDv7, RFC 9562 §5.7), alone or with a prefix that names the kind."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from itertools import count


class _Bits:
    """Random bits from the operating system, fetched for many identifiers at once: a system call each is slow."""

    def __init__(self) -> None:
        self._pool: list[int] = []
        os.register_at_fork(after_in_child=self._pool.clear)  # its parent gives out the same ones

    def next64(self) -> int:
        """64 bits that nobody else gets; safe from any thread, as taking one out of a list is one operation."""
        try:
            return self._pool.pop()
        except IndexError:
            first: int
            first, *others = struct.unpack("=512Q", os.urandom(4096))
            self._pool += others
            return first


class _Ticks:
    """(millisecond, counter) pairs that only rise; the counter has 12 bits (RFC 9562 §6.2, method 1)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Milliseconds since 1970 in the upper bits, the counter in the lower 12."""
        now = time.time_ns() // 1_000_000 << 12
        with self._lock:
            self._last = now if now > self._last else self._last + 1
            return self._last


_ticks = _Ticks()
_bits = _Bits()
_VERSION = 0x7 << 76 | 0b10 << 62
"""The fixed bits of a UUIDv7: its version and its variant."""


def uuid7_hex() -> str:
    """A UUIDv7 as 32 lower-case hex digits; strictly increasing within this process."""
    ticks = _ticks.next()
    return f"{ticks >> 12 << 80 | (ticks & 0xFFF) << 64 | _bits.next64() >> 2 | _VERSION:032x}"


def new_id(prefix: str) -> str:
    """`prefix_` followed by a UUIDv7, e.g. `key_0193…`."""
    return f"{prefix}_{uuid7_hex()}"


def new_trace_id() -> str:
    """A W3C trace id (32 hex digits) that also sorts by time."""
    return uuid7_hex()


def new_span_id() -> str:
    """A W3C span id: 16 hex digits, never all zero."""
    return f"{_bits.next64() or 1:016x}"


def span_ids() -> Iterator[str]:
    """W3C span ids for the spans of one trace, without end: they count up from a random one (of 63 bits)."""
    return map("%016x".__mod__, count((_bits.next64() >> 1) + 1))
