"""What an operator does while requests run: keys made and revoked, releases moved, a route's weights changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from benchmarks.soak.setup import BUDGET, Soaked

FOLLOWED_WITHIN_S = 10.0
PAUSE_S = 5.0


@dataclass(slots=True)
class Operator:
    session: aiohttp.ClientSession
    base_url: str
    soaked: Soaked
    done: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    async def run(self, ending: asyncio.Event) -> None:
        """One change after another, with pauses, until the load ends."""
        edition = 1
        while not ending.is_set():
            edition += 1
            try:
                await self._change(edition)
            except (aiohttp.ClientError, RuntimeError) as error:
                self.unexplained.append(f"a change failed: {type(error).__name__} {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), PAUSE_S)

    async def _change(self, edition: int) -> None:
        await self._key(edition)
        await self._release(edition)
        self.soaked.write_project(weight=1 + edition % 3)
        self.done["route changed"] += 1

    async def _key(self, number: int) -> None:
        key_id, token = await self.soaked.create_key(f"passing {number}", BUDGET)
        await self._until(200, token, "a new key is known")
        await self.soaked.mainstay("key", "revoke", key_id)
        await self._until(401, token, "a revoked key is refused")
        self.done["key made and revoked"] += 1

    async def _release(self, edition: int) -> None:
        self.soaked.write_prompt(edition)
        await self.soaked.mainstay("apply", "--promote")
        self.done["release promoted"] += 1
        if edition % 3 == 0:
            await self.soaked.mainstay("release", "rollback", "bot")
            self.done["release rolled back"] += 1

    async def _until(self, status: int, token: str, what: str) -> None:
        """Ask until the answer has this status. Only 200 and 401 may come, and the change within seconds."""
        end = time.monotonic() + FOLLOWED_WITHIN_S
        while (seen := await self._status(token)) != status:
            if seen not in (200, 401) or time.monotonic() > end:
                self.unexplained.append(f"{what}: status {seen}")
                return
            await asyncio.sleep(0.1)

    async def _status(self, token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        async with self.session.get(f"{self.base_url}/v1/models", headers=headers) as reply:
            body = await reply.read()
            if reply.status == 200:
                json.loads(body)
            return reply.status
