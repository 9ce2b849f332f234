"""Hundreds of concurrent, cancelled, failing, clamped and streaming requests: money is kept to the nano-dollar."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.core.ids import uuid7_hex
from mainstay.govern.types import Budget, LimitScope
from mainstay.serving.limits import Journal, Limiter, MemoryLimiter, RedisLimiter
from support.limits import DAY_US, SECOND_US, ManualClock, asking, scope
from support.limits_traffic import Books, Traffic, accounts_of, observe, run
from support.redis_server import RedisServer, shared_redis_server  # noqa: F401


def some_scopes(seed: random.Random) -> list[list[LimitScope]]:
    """Callers of two teams in one project; every kind of limit, each tight enough to refuse now and then."""
    project = scope(
        "project", "p", Budget(seed.randint(20_000, 60_000), "total"), Budget(5000, "week", hard=False)
    )
    callers = []
    for number in range(4):
        key = scope(
            "key", str(number), Budget(seed.randint(2000, 9000), "day"), rpm=seed.choice([None, 100, 400])
        )
        team = scope(
            "team",
            str(number % 2),
            Budget(seed.randint(5000, 20_000), "month"),
            tpm=seed.choice([None, 2000, 20_000]),
            slots=seed.choice([None, 15, 40]),
        )
        callers.append([key, scope("user", "nobody"), team, project])
    teams = {caller[2].id: caller[2] for caller in callers}
    return [[key, user, teams[team.id], shared] for key, user, team, shared in callers]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_in_memory_every_nano_dollar_is_accounted_for(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asyncio.run(_memory_run(seed, tmp_path_factory.mktemp("limits") / "limits.journal"))


async def _memory_run(seed: int, path: Path) -> None:
    source, clock = random.Random(seed), ManualClock()
    clock.forward(DAY_US - 30 * SECOND_US)  # midnight passes on the way
    began_us, scopes = clock(), some_scopes(source)
    compacting = source.random() < 0.3  # then windows that are over may be forgotten on the way
    journal = Journal(path, compact_above_bytes=20_000 if compacting else 10**9)
    limiter, books = MemoryLimiter(journal, clock), Books(clock)

    everyone = list({(each.kind, each.id): each for caller in scopes for each in caller}.values())

    async def pause() -> None:
        clock.forward(source.randint(0, SECOND_US // 3))
        await observe(limiter, everyone)
        await asyncio.sleep(0)

    await run(Traffic(limiter, books, source, pause), scopes, 300, cancel_share=0.2)

    balances = limiter.balances()
    today = {account for caller in scopes for account in accounts_of(caller, clock())}
    expected = {account: nusd for account, nusd in (+books.settled).items() if account in today}
    spends = {account: spent for account, (spent, _) in balances.items() if spent}
    assert spends.items() >= expected.items()
    assert compacting or spends == dict(+books.settled)
    assert not any(held for _, held in balances.values())
    books.check_rates(everyone, began_us)
    await limiter.close()
    again = MemoryLimiter(Journal(path), clock)
    assert {account: spent for account, (spent, _) in again.balances().items() if spent} == expected
    await again.close()


@pytest.mark.parametrize("seed", range(10))
async def test_on_redis_every_nano_dollar_is_accounted_for(
    redis_server: RedisServer,
    seed: int,
) -> None:
    source, clock = random.Random(seed), ManualClock()
    clock.forward(DAY_US - 10 * SECOND_US)
    began_us, scopes, prefix = clock(), some_scopes(source), uuid7_hex()
    limiters = [RedisLimiter(redis_server.url, clock=clock, prefix=prefix, timeout_s=10) for _ in range(3)]
    books = Books(clock, lambda hold_id: any(hold_id in limiter._outbox.pending for limiter in limiters))

    async def pause() -> None:
        clock.forward(source.randint(0, SECOND_US // 20))
        await asyncio.sleep(source.choice([0, 0, 0.001]))

    everyone = list({(each.kind, each.id): each for caller in scopes for each in caller}.values())

    async def watch() -> None:
        while True:
            await observe(limiters[0], everyone)
            await asyncio.sleep(0.001)

    async def serve(limiter: Limiter, number: int) -> None:
        traffic = Traffic(limiter, books, random.Random(seed * 100 + number), pause)
        await run(traffic, scopes, 100, cancel_share=0.2)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(serve(limiter, number) for number, limiter in enumerate(limiters)))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert watching.cancelled()

    for limiter in limiters:
        await limiter.states(scopes[0])  # what was told before has arrived
    states = await limiters[0].states(everyone)
    today = [account for each in everyone for account in accounts_of([each], clock())]
    assert [(s.spent_nusd, s.held_nusd) for s in states] == [(books.settled[account], 0) for account in today]
    books.check_rates(everyone, began_us)
    for limiter in limiters:
        await limiter.close()


WORKER = """
import asyncio, json, random, sys
from support.limits import scope, asking
from support.limits_traffic import REFUSALS
from mainstay.govern.types import Budget
from mainstay.serving.limits import RedisLimiter

async def main(url, prefix, seed):
    source = random.Random(seed)
    limiter = RedisLimiter(url, prefix=prefix, timeout_s=10, hold_ttl_s=3)
    scopes = [scope("key", "a", Budget(200_000, "total"), slots=60), scope("team", "t", Budget(1_000_000, "total"))]
    reserved = settled = 0
    async def one():
        nonlocal reserved, settled
        try:
            hold = await limiter.reserve(scopes, asking(source.randint(1, 900), 1, tokens=5))
        except REFUSALS as error:
            return
        reserved += hold.nusd
        try:
            await asyncio.sleep(source.random() / 50)
            cost = source.randint(0, hold.nusd)
        except asyncio.CancelledError:
            cost = hold.nusd // 3
        settled += cost
        limiter.settle(hold, cost, 1)
    for turn in range(60):
        tasks = [asyncio.ensure_future(one()) for _ in range(10)]
        await asyncio.sleep(source.random() / 60)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if turn == 20:
            print("under way", flush=True)
    await limiter.states(scopes)
    print(json.dumps([settled, limiter.unsettled]), flush=True)
    await limiter.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_three_processes_one_killed_never_exceed_and_leave_nothing_held(
    redis_server: RedisServer,
) -> None:
    prefix = uuid7_hex()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, redis_server.url, prefix, str(seed)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    outputs = [worker.stdout for worker in workers]
    observer = RedisLimiter(redis_server.url, prefix=prefix, timeout_s=10, hold_ttl_s=3)
    observer.start()  # it sweeps, should the others have gone before the dead one's holds expire
    key, team = (
        scope("key", "a", Budget(200_000, "total"), slots=60),
        scope("team", "t", Budget(1_000_000, "total")),
    )
    assert outputs[0] is not None
    await asyncio.to_thread(outputs[0].readline)
    workers[0].kill()
    deadline = time.monotonic() + 60
    seen: Counter[bool] = Counter()
    while time.monotonic() < deadline:
        of_key, of_team = await observer.states([key, team])
        assert of_key.spent_nusd + of_key.held_nusd <= 200_000
        assert (of_key.spent_nusd, of_key.held_nusd) == (of_team.spent_nusd, of_team.held_nusd)
        running = any(worker.poll() is None for worker in workers)
        seen[running] += 1
        if not running and of_key.held_nusd == 0:
            break
        await asyncio.sleep(0.002)
    results = [json.loads(out.read().splitlines()[-1]) for out in outputs[1:] if out is not None]
    final = (await observer.states([key]))[0]
    assert final.held_nusd == 0
    assert [unsettled for _, unsettled in results] == [0, 0]
    assert sum(settled for settled, _ in results) <= final.spent_nusd <= 200_000
    assert (await observer.reserve([key], asking(0))).tracked  # no slot is left taken
    assert seen[True]
    for worker in workers:
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
    await observer.close()
