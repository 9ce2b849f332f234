"""The exact cache: the same question from the same caller to the same release gives the same answer, at no cost.

Keys hold everything that shapes an answer: the whole request, the caller, and the release's digest, so that
a roll-back also rolls the cache back and no caller ever sees another's answer. In memory only.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.core.content import digest_json
from mainstay.govern.types import Identity
from mainstay.serving.types import ChatRequest, Final


def cache_key(request: ChatRequest, identity: Identity, served_by: str) -> str:
    """Digest of the request, the caller and `served_by` (a release digest, or a model's public name)."""
    return digest_json(
        {
            "messages": [[m.role, m.content] for m in request.messages],
            "max_tokens": request.call.max_tokens,
            "temperature": request.call.temperature,
            "top_p": request.call.top_p,
            "stop": list(request.call.stop),
            "seed": request.call.seed,
            "user": request.user,
            "extra": dict(request.call.extra),
            "caller": identity.id,
            "groups": sorted(identity.groups),
            "served_by": served_by,
        }
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    final: Final
    expires_at_us: int
    size_bytes: int


class ExactCache:
    """Least-recently-used answers, bounded in bytes and age. Safe from any thread."""

    def __init__(
        self, *, limit_bytes: int = 64 * 2**20, ttl_s: float = 3600.0, clock: Clock = now_us
    ) -> None:
        self._limit_bytes = limit_bytes
        self._ttl_us = int(ttl_s * US_PER_S)
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: str) -> Final | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires_at_us <= self._clock():
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry.final

    def put(self, key: str, final: Final) -> None:
        """Keep a complete answer; one larger than the whole cache is not kept."""
        size = _size_bytes(final)
        if size > self._limit_bytes:
            return
        with self._lock:
            if key in self._entries:
                self._drop(key)
            self._entries[key] = _Entry(final, self._clock() + self._ttl_us, size)
            self.size_bytes += size
            while self.size_bytes > self._limit_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, key: str) -> None:
        self.size_bytes -= self._entries.pop(key).size_bytes


def _size_bytes(final: Final) -> int:
    """The texts it holds and a fixed part for the objects around each."""
    texts = [final.text, *final.grounding.removed, *final.grounding.flagged]
    texts += [c.quote for c in final.citations] + [p.text for p in final.passages]
    return 1024 + sum(sys.getsizeof(text) + 512 for text in texts)
