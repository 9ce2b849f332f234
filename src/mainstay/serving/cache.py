"""The exact cache: the same question from the same tenant to the same release gives the same answer, at no cost.

Keys hold everything that shapes an answer: the whole request, the tenant and the groups whose documents it
may see, and the release's digest, so that a roll-back also rolls the cache back and no tenant ever sees
another's answer. In memory only.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.core.values import value
from mainstay.govern.types import Identity
from mainstay.models.types import ChatCall
from mainstay.serving.types import Final, SurfaceName

TTL_S = 3600.0
"""How long an answer is kept when the route or release does not say."""

_OBJECTS_TO_JSON = 10
"""A tree of small objects takes about this many times the bytes of its JSON."""

_NOT_SHAPING = frozenset({"stream", "stream_options", "model"})
"""How an answer is delivered does not shape it; the model is told by what served it."""


def cache_key(surface: SurfaceName, call: ChatCall, identity: Identity, tenant: str, served_by: str) -> str:
    """SHA-256 of what is asked, the tenant and `served_by` (a release digest, or the route's targets)."""
    asked: Any = call if call.source is None else _shaping(call.source)
    whole = [surface, tenant, sorted(identity.groups), served_by, asked]
    return hashlib.sha256(orjson.dumps(whole)).hexdigest()


def _shaping(body: Mapping[str, Any]) -> dict[str, Any]:
    """In one order at the top alone: the order of a schema's properties is the order of the answer's."""
    return {name: body[name] for name in sorted(body) if name not in _NOT_SHAPING}


@value
class Cached:
    """An answer and when it was given."""

    final: Final
    stored_at_us: int
    expires_at_us: int
    size_bytes: int


class ExactCache:
    """Least-recently-used answers, bounded in bytes and age. Safe from any thread."""

    def __init__(self, *, limit_bytes: int = 64 * 2**20, clock: Clock = now_us) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Cached] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: str, max_age_s: float | None = None) -> Cached | None:
        """The answer stored under `key`, unless it is older than `max_age_s` or its own time to live."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            now = self._clock()
            if entry.expires_at_us <= now:
                self._drop(key)
                return None
            if max_age_s is not None and now - entry.stored_at_us > max_age_s * US_PER_S:
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, key: str, final: Final, ttl_s: float = TTL_S) -> None:
        """Keep a complete answer; one larger than the whole cache is not kept."""
        size = _size_bytes(final)
        if size > self._limit_bytes:
            return
        with self._lock:
            if key in self._entries:
                self._drop(key)
            now = self._clock()
            self._entries[key] = Cached(final, now, now + int(ttl_s * US_PER_S), size)
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
    texts = [*final.grounding.removed, *final.grounding.flagged]
    held = 1024 + len(final.raw or b"")
    for choice in final.choices:
        texts += (choice.text, choice.reasoning)
        if choice.tool_calls:
            texts += [call.arguments for call in choice.tool_calls]
        if choice.thinking:
            texts += [t.text + (t.signature or "") + (t.encrypted or "") for t in choice.thinking]
        if choice.logprobs:
            held += len(orjson.dumps(choice.logprobs)) * _OBJECTS_TO_JSON
    if final.passages or final.citations:
        texts += [c.quote for c in final.citations] + [p.text for p in final.passages]
    return held + 512 * len(texts) + sum(map(sys.getsizeof, texts))
