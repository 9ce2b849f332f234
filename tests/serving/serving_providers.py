"""Providers of these tests beside the scripted one: that give way at every step, that spend all they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from serving_plane import Scripted

from mainstay.models.tokens import call_token_ceiling
from mainstay.models.types import Capability, ChatCall, Delta, Usage


class Yielding(Scripted):
    """Gives way to the event loop before every step, so that a cancellation can come anywhere."""

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        await asyncio.sleep(0)
        async with aclosing(super().stream(call, deadline_s)) as steps:  # type: ignore[type-var]
            async for step in steps:
                await asyncio.sleep(0)
                yield step


class Spends(Yielding):
    """Uses up all that it is allowed, and reads all that can be held for its input."""

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        used = Usage(call_token_ceiling(call), (call.max_tokens or 10**6) * call.n)
        self.scripts = [
            [replace(s, usage=used) if isinstance(s, Delta) and s.finish_reason else s for s in script]
            for script in self.scripts
        ]
        async with aclosing(super().stream(call, deadline_s)) as steps:  # type: ignore[type-var]
            async for step in steps:
                yield step


class Plain(Spends):
    supports: frozenset[Capability] = frozenset({"temperature", "top_p", "seed"})
