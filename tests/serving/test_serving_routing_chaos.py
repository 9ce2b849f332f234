"""Whatever happens to whom and when: nothing is left open, counted twice, or late."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from serving_routing_lab import FOREVER, STOP, Lab, Scripted, Step, now, route, run, target

from mainstay.core.errors import MainstayError
from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
)
from mainstay.models.types import Delta
from mainstay.serving.errors import InsufficientQuota

DEADLINE_S = 20.0


def any_failure(chance: random.Random) -> ProviderError:
    kind, status = chance.choice(
        [
            (ProviderUnreachable, None),
            (ProviderError, 500),
            (ProviderTimeout, None),
            (ProviderTimeout, 504),
            (ProviderRateLimited, 429),
            (ProviderAuthFailed, 401),
            (ProviderAuthFailed, 403),
            (ProviderBadRequest, 400),
            (ContextTooLong, 400),
            (ProviderModelMissing, 404),
            (ProviderStreamBroken, None),
        ]
    )
    wait_s = chance.choice([None, 0.5, 4.0, 30.0]) if status in (429, 500) else None
    return kind("no", provider="p", upstream_status=status, retry_after_s=wait_s)


def any_script(chance: random.Random) -> list[Step]:
    steps: list[Step] = [chance.uniform(0, 3), Delta(model="m"), "a", chance.uniform(0, 3), "b", STOP]
    fate = chance.random()
    if fate < 0.7:
        return steps
    return [*steps[: chance.randrange(6)], FOREVER if fate < 0.8 else any_failure(chance)]


class Fickle(Scripted):
    def __init__(self, name: str, chance: random.Random) -> None:
        super().__init__(name)
        self._chance = chance

    @property
    def default(self) -> list[Step]:  # type: ignore[override]
        return any_script(self._chance)

    @default.setter
    def default(self, steps: list[Step]) -> None: ...


async def one(lab: Lab, given: object, chance: random.Random) -> str:
    """Ask, and perhaps leave in the middle. Says how it ended."""
    work = lab.ask if chance.random() < 0.7 else lab.complete
    task = asyncio.create_task(work(given, DEADLINE_S))  # type: ignore[arg-type]
    if chance.random() < 0.2:
        asyncio.get_running_loop().call_later(chance.uniform(0, 5), task.cancel)
    began = now()
    await asyncio.wait((task,))
    assert now() - began <= DEADLINE_S + 1e-6
    if task.cancelled():
        return "left"
    error = task.exception()
    if error is None:
        assert task.result() in ("ab", "")
        return "answered"
    assert isinstance(error, MainstayError), error
    return "failed"


@pytest.mark.parametrize("seed", range(12))
def test_no_request_leaves_anything_open_or_comes_late(seed: int) -> None:
    async def work() -> Counter[str]:
        chance = random.Random(seed)
        lab = Lab(seed=seed)
        lab.routes["long"] = route(target(Fickle("long", chance), "long"))
        lab.refuse = lambda t: InsufficientQuota("no", retry_after_s=None) if chance.random() < 0.03 else None
        given = route(
            *(
                target(Fickle(f"p{n}", chance), f"m{n % 2}", credential=f"key {n}", usd=n + 1.0)
                for n in range(4)
            ),
            policy=chance.choice(["ordered", "weighted", "latency", "cheapest"]),
            first_token_timeout_s=2.0,
            context_fallback="long",
        )
        ends: list[str] = []

        async def client() -> None:
            for _ in range(15):
                ends.append(await one(lab, given, chance))
                await asyncio.sleep(chance.uniform(0, 20))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
        assert lab.in_flight() == 0
        assert set(lab.log.begun) == set(lab.log.over)
        assert all(a.ended_s is not None for a in lab.log.over)
        assert len(asyncio.all_tasks()) == 1
        for plan in lab.all_plans:
            each = Counter(id(attempt.target) for attempt in plan.attempts)
            assert each.total() <= 3
            assert max(each.values(), default=0) <= 2
        loop = asyncio.get_running_loop()
        assert all(h.cancelled() or h.when() <= now() + DEADLINE_S for h in loop._scheduled)  # type: ignore[attr-defined]
        return Counter(ends)

    ends = run(work())
    assert ends.total() == 120
    assert ends["answered"] > 0
