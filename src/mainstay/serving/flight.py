"""Single-flight: of identical requests that run at once, one asks the model and the others wait for its answer."""

from __future__ import annotations

import asyncio


class Flights:
    """Answers under way, by cache key. For one event loop."""

    def __init__(self) -> None:
        self._flying: dict[str, asyncio.Event | None] = {}
        """None: nobody has joined yet, and most are never joined."""

    async def join(self, key: str) -> bool:
        """Wait for the request that leads with this key; False at once when none does."""
        if key not in self._flying:
            return False
        flying = self._flying[key]
        if flying is None:
            flying = self._flying[key] = asyncio.Event()
        await flying.wait()
        return True

    def __contains__(self, key: str) -> bool:
        return key in self._flying

    def lead(self, key: str) -> bool:
        """From now on others may join, until `land`. False when another leads already."""
        if key in self._flying:
            return False
        self._flying[key] = None
        return True

    def land(self, key: str) -> None:
        """The answer is in the cache, or came to nothing: who waited looks, or asks for itself."""
        flying = self._flying.pop(key)
        if flying is not None:
            flying.set()
