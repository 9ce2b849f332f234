"""Single-flight: of identical requests that run at once, one asks the model and the others wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from mainstay.serving.types import Final


class Flights:
    """Answers under way, by cache key. For one event loop."""

    def __init__(self) -> None:
        self._flying: dict[str, asyncio.Future[Final | None]] = {}

    async def join(self, key: str) -> Final | None:
        """The answer of the request that leads with this key; None when none leads, or when it came to nothing."""
        flying = self._flying.get(key)
        # Shielded: a follower that leaves must not cancel the leader's promise to the others.
        return None if flying is None else await asyncio.shield(flying)

    @contextmanager
    def lead(self, key: str) -> Iterator[asyncio.Future[Final | None]]:
        """Within the block others may join; set the future to the answer, or leave and they ask themselves."""
        promise: asyncio.Future[Final | None] = asyncio.get_running_loop().create_future()
        self._flying[key] = promise
        try:
            yield promise
        finally:
            del self._flying[key]
            if not promise.done():
                promise.set_result(None)

    def __contains__(self, key: str) -> bool:
        return key in self._flying
