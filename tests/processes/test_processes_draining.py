"""A server that is told to end: streams finish or are told why not, nothing that was spent or recorded is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import pytest
from processes_world import Answer, World, ask, fresh_session, world

from mainstay.govern.types import Budget, Limits
from mainstay.observe import Drain, Spool, TraceStore
from mainstay.observe.types import TraceFilter
from mainstay.serving.limits import Journal, MemoryLimiter

STREAMS = 20
COST_NUSD = 17_000
"""7 tokens in at $1 a million, 5 out at $2."""
COMMANDS = {"gateway": ("gateway",), "up": ("up", "--no-apply")}
BUDGETED = Limits(budgets=(Budget(10**9, "day", hard=True),))


class Drained:
    """Streams under way on a server, which is then told to end."""

    def __init__(self, made: World, command: tuple[str, ...], drain_s: int) -> None:
        self.world = made
        self.token, self.key_id = made.key(BUDGETED)
        self.server = made.start(*command, MAINSTAY_DRAIN_S=str(drain_s))

    async def streams_while(self, signals: int, **order: object) -> list[Answer]:
        """All streams, during which the server gets the signals."""
        async with fresh_session() as session, aiohttp.ClientSession() as idle:
            await idle.get(f"{self.server.base_url}/healthz")  # its connection stays open, and idle
            asking = [
                asyncio.create_task(ask(session, self.server.base_url, self.token, stream=True, **order))
                for _ in range(STREAMS)
            ]
            await self._all_begun(session)
            for _ in range(signals):
                self.server.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.3)  # two at the same moment are one signal
            if signals == 1:
                await self._look_while_draining(session)
            return await asyncio.gather(*asking)

    async def _all_begun(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        while True:
            async with session.get(f"{self.server.base_url}/metrics", headers=headers) as reply:
                if f"mainstay_streams_open {STREAMS}.0" in await reply.text():
                    return
            await asyncio.sleep(0.02)

    async def _look_while_draining(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self.server.base_url}/readyz") as reply:
            self.readiness = (reply.status, (await reply.json())["status"])
        self.late = await ask(session, self.server.base_url, self.token)

    def ended(self) -> int:
        return self.server.process.wait(30)

    def spent(self) -> tuple[int, int]:
        """(spent, held) in the journal that the process left; an open hold would count in full."""
        limiter = MemoryLimiter(Journal(self.world.settings.data_dir / "ledger" / "journal.jsonl"))
        (balance,) = [b for key, b in limiter.balances().items() if key[1] == self.key_id]
        asyncio.run(limiter.close())
        return balance

    def traces(self) -> list[str]:
        """The state of each durable trace."""
        observe = self.world.settings.data_dir / "observe"
        spool, store = Spool(observe / "spool"), TraceStore(observe)
        drain = Drain(spool, store)
        drain.flush()
        found = [row.status for row in store.list(TraceFilter(), None, 100)]
        drain.close()
        spool.close()
        store.close()
        return found


@pytest.mark.parametrize("command", ["gateway", pytest.param("up", marks=pytest.mark.slow)])
def test_streams_end_complete_when_the_server_is_told_to_end(tmp_path: Path, command: str) -> None:
    with world(tmp_path / "w") as made:
        drained = Drained(made, COMMANDS[command], drain_s=30)
        answers = asyncio.run(drained.streams_while(signals=1, pieces=30, pace_s=0.1))
        ended = time.monotonic()
        assert drained.ended() == 0
        print(f"ended {time.monotonic() - ended:.2f} s after the last stream")
        assert all(answer.complete for answer in answers)
        assert drained.readiness == (503, "draining")
        assert (drained.late.status, drained.late.code) == (503, "shutting_down")
        assert (drained.late.headers["Retry-After"], drained.late.headers["x-should-retry"]) == ("1", "true")
        assert drained.spent() == (STREAMS * COST_NUSD, 0)
        assert len(drained.traces()) == STREAMS
        assert "Traceback" not in drained.server.said()


@pytest.mark.parametrize(
    ("command", "signals", "drain_s"),
    [
        ("gateway", 2, 60),
        pytest.param("gateway", 1, 1, marks=pytest.mark.slow),
        pytest.param("up", 2, 60, marks=pytest.mark.slow),
    ],
)
def test_what_is_late_is_cut_off_with_an_error_and_settled(
    tmp_path: Path, command: str, signals: int, drain_s: int
) -> None:
    with world(tmp_path / "w") as made:
        drained = Drained(made, COMMANDS[command], drain_s)
        answers = asyncio.run(drained.streams_while(signals, pieces=600, pace_s=0.1))
        assert drained.ended() == 0
        assert {answer.status for answer in answers} == {200}
        assert all('"code":"shutting_down"' in answer.text.replace(" ", "") for answer in answers)
        assert not any(answer.complete or "[DONE]" in answer.text for answer in answers)
        spent, held = drained.spent()
        assert (0 < spent < 10**9, held) == (True, 0)
        assert len(drained.traces()) == STREAMS
        assert "Traceback" not in drained.server.said()
