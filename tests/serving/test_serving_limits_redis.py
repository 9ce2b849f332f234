"""The Redis limiter where it differs: many processes, outages, expiry, exactness."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError, MissingExtra
from mainstay.core.ids import uuid7_hex
from mainstay.govern.types import Budget
from mainstay.serving.errors import BudgetInFlight, BudgetStoreUnavailable, TooManyAtOnce
from mainstay.serving.limits import RedisLimiter
from support.limits import DAY_US, SECOND_US, ManualClock, asking, money_of, scope
from support.redis_server import RedisServer, redis_server_of_one_test, shared_redis_server  # noqa: F401

TOTAL = Budget(10**9, "total")
PATIENT_S = 20.0


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.002)


def limiter_of(server: RedisServer, prefix: str, **options: object) -> RedisLimiter:
    return RedisLimiter(server.url, prefix=prefix, **{"timeout_s": 10, **options})  # type: ignore[arg-type]


async def test_processes_share_every_limit(redis_server: RedisServer) -> None:
    prefix = uuid7_hex()
    one, two = limiter_of(redis_server, prefix), limiter_of(redis_server, prefix)
    key = scope("key", "a", Budget(1000, "month"), slots=2)
    hold = await one.reserve([key], asking(600))
    assert (await two.reserve([key], asking(600))).nusd == 400
    with pytest.raises(TooManyAtOnce):
        await two.reserve([key], asking(0))
    two.settle(hold, 50, None)  # by whoever has the hold
    assert await money_of(two, key) == (50, 400)
    await one.close()
    await two.close()


async def test_redis_clock_decides_about_windows_and_rates(redis_server: RedisServer) -> None:
    limiter = limiter_of(redis_server, uuid7_hex())
    limiter._offset_us = 3 * DAY_US  # our idea of Redis's clock is wrong until it answers
    key = scope("key", "a", Budget(1000, "day"), rpm=100)
    hold = await limiter.reserve([key], asking(10))
    assert abs(limiter._offset_us) < SECOND_US * 60
    limiter.settle(hold, 10, None)
    assert await money_of(limiter, key) == (10, 0)
    await limiter.close()


async def test_a_dead_processes_holds_are_settled_in_full_once(redis_server: RedisServer) -> None:
    prefix, clock = uuid7_hex(), ManualClock()
    dead, alive = (limiter_of(redis_server, prefix, clock=clock, hold_ttl_s=60) for _ in range(2))
    key = scope("key", "a", Budget(1000, "day"), slots=1)
    hold = await dead.reserve([key], asking(300))
    clock.forward(59 * SECOND_US)
    assert await alive.sweep() == 0
    clock.forward(2 * SECOND_US)
    assert [await alive.sweep(), await alive.sweep()] == [1, 0]
    assert await money_of(alive, key) == (300, 0)
    assert (await alive.reserve([key], asking(0))).tracked  # the slot is free again
    dead.settle(hold, 120, None)  # it was only cut off
    dead.settle(hold, 120, None)
    await until(lambda: dead.unsettled == 0)
    assert await money_of(alive, key) == (120, 0)
    await dead.close()
    await alive.close()


async def test_a_living_process_keeps_its_holds(redis_server: RedisServer) -> None:
    prefix, clock = uuid7_hex(), ManualClock()
    limiter = limiter_of(redis_server, prefix, clock=clock, hold_ttl_s=60)
    key = scope("key", "a", TOTAL)
    hold = await limiter.reserve([key], asking(300))
    for _ in range(10):
        clock.forward(40 * SECOND_US)
        limiter._beat()
        assert await money_of(limiter, key) == (0, 300)
    limiter.settle(hold, 1, None)
    assert await money_of(limiter, key) == (1, 0)
    await limiter.close()


async def test_amounts_up_to_the_largest_budget_are_exact(redis_server: RedisServer) -> None:
    limiter, largest = limiter_of(redis_server, uuid7_hex()), 2**53 - 1
    key = scope("key", "a", Budget(largest, "total"), Budget(5, "month", hard=False))
    hold = await limiter.reserve([key], asking(largest - 1))
    assert hold.remaining_nusd == 1
    limiter.settle(hold, largest - 2, None)
    assert (await limiter.reserve([key], asking(10, 1))).nusd == 2
    assert await money_of(limiter, key) == (largest - 2, 2)
    await limiter.close()


async def test_a_soft_budgets_spend_is_exact_beyond_doubles(redis_server: RedisServer) -> None:
    limiter, team = limiter_of(redis_server, uuid7_hex()), scope("team", "t", Budget(1, "total", hard=False))
    costs = [2**53 - 1, 2**53 - 1, 7, 2**52 + 1, 1]
    for cost in costs:
        limiter.settle(await limiter.reserve([team], asking(5)), cost, None)
    assert await money_of(limiter, team) == (sum(costs), 0)
    await limiter.close()


async def test_a_budget_too_large_to_be_exact_is_refused(redis_server: RedisServer) -> None:
    limiter = limiter_of(redis_server, uuid7_hex())
    with pytest.raises(ConfigError, match="too large to be shared through Redis") as caught:
        await limiter.reserve([scope("key", "a", Budget(2**53, "total"))], asking(1))
    assert caught.value.fix == "Set at most $9,007,199.25, or none."
    await limiter.close()


async def test_flushed_scripts_are_loaded_again(own_redis: RedisServer) -> None:
    limiter, key = limiter_of(own_redis, "p"), scope("key", "a", TOTAL)
    await limiter.reserve([key], asking(10))
    await limiter._batches._store._client.script_flush()
    await limiter.reserve([key], asking(10))
    assert await money_of(limiter, key) == (0, 20)
    await limiter.close()


async def test_an_outage_loses_no_settlement_and_refuses_at_once(own_redis: RedisServer) -> None:
    limiter, key = limiter_of(own_redis, "p"), scope("key", "a", TOTAL)
    holds = [await limiter.reserve([key], asking(100)) for _ in range(3)]
    own_redis.kill()
    limiter.settle(holds[0], 10, None)
    await until(lambda: limiter.down)
    trips = limiter._batches.round_trips
    for _ in range(50):
        with pytest.raises(BudgetStoreUnavailable) as caught:
            await limiter.reserve([key], asking(100))
    assert caught.value.retry_after_s == 1
    assert limiter._batches.round_trips - trips <= 1  # a probe at most: no request asked Redis
    limiter.settle(holds[1], 20, None)
    own_redis.start()
    await until(lambda: not limiter.down)
    limiter.settle(holds[2], 30, None)
    await until(lambda: limiter.unsettled == 0)
    assert await money_of(limiter, key) == (60, 0)
    await limiter.close()


async def test_without_a_hard_budget_an_outage_lets_requests_through_and_counts_them(
    own_redis: RedisServer,
) -> None:
    limiter = limiter_of(own_redis, "p")
    own_redis.kill()
    hold = await limiter.reserve([scope("key", "a", Budget(5, "day", hard=False), rpm=1)], asking(10))
    limiter.settle(hold, 5, None)
    assert (hold.tracked, limiter.let_through) == (False, 1)
    await limiter.close()


async def test_a_frozen_redis_costs_one_time_out_and_no_hold(own_redis: RedisServer) -> None:
    limiter, key = limiter_of(own_redis, "p", timeout_s=0.25), scope("key", "a", TOTAL, slots=9)
    await until_answered(limiter, own_redis)
    own_redis.freeze()
    waiting = [limiter.reserve([key], asking(100)) for _ in range(20)]
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in refused} == {BudgetStoreUnavailable}
    own_redis.thaw()
    await until(lambda: not limiter.down)
    patient = limiter_of(own_redis, "p")
    deadline = time.monotonic() + PATIENT_S
    while await money_of(patient, key) != (0, 0):  # lost reservations were taken back
        assert time.monotonic() < deadline
    await limiter.close()
    await patient.close()


async def until_answered(limiter: RedisLimiter, server: RedisServer) -> None:
    """The script is loaded, so that the next batch is one round trip."""
    while True:
        try:
            return void(await limiter.states([scope("key", "x", TOTAL)]))
        except BudgetStoreUnavailable:
            await asyncio.sleep(0.01)


def void(_: object) -> None:
    return None


async def test_a_reservation_that_arrives_after_its_cancellation_is_refused(
    redis_server: RedisServer,
) -> None:
    limiter, key = limiter_of(redis_server, uuid7_hex()), scope("key", "a", TOTAL)
    limiter._batches.tell(["cancel", f"{limiter._id_prefix}1"])
    with pytest.raises(BudgetStoreUnavailable):
        await limiter.reserve([key], asking(10))
    assert await money_of(limiter, key) == (0, 0)
    await limiter.close()


async def test_a_caller_that_leaves_while_waiting_holds_nothing(redis_server: RedisServer) -> None:
    limiter, key = limiter_of(redis_server, uuid7_hex()), scope("key", "a", TOTAL, slots=1)
    for steps in range(6):
        task = asyncio.create_task(limiter.reserve([key], asking(10)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until_free(limiter, key)
    await limiter.close()


async def until_free(limiter: RedisLimiter, key: object) -> None:
    deadline = time.monotonic() + PATIENT_S
    while await money_of(limiter, key) != (0, 0):  # type: ignore[arg-type]
        assert time.monotonic() < deadline


async def test_the_outbox_brings_settlements_over_a_restart(own_redis: RedisServer, tmp_path: Path) -> None:
    path, key = tmp_path / "outbox.journal", scope("key", "a", TOTAL)
    first = limiter_of(own_redis, "p", outbox_path=path, timeout_s=0.25)
    await until_answered(first, own_redis)
    holds = [await first.reserve([key], asking(100)) for _ in range(2)]
    own_redis.kill()
    first.settle(holds[0], 10, 0)
    first.settle(holds[1], None, None)
    await first.close()
    own_redis.start()
    again = limiter_of(own_redis, "p", outbox_path=path)
    assert again.unsettled == 2
    again.start()
    await until(lambda: again.unsettled == 0)
    assert await money_of(again, key) == (110, 0)
    await again.close()


async def test_many_at_once_share_few_round_trips(redis_server: RedisServer) -> None:
    limiter, key = limiter_of(redis_server, uuid7_hex()), scope("key", "a", Budget(1000, "day"))
    results = await asyncio.gather(
        *(limiter.reserve([key], asking(10)) for _ in range(130)), return_exceptions=True
    )
    assert sum(isinstance(result, BudgetInFlight) for result in results) == 30
    assert limiter._batches.round_trips <= 4
    await limiter.close()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtra, match=r"pip install \"mainstay\[redis\]\""):
        RedisLimiter("redis://localhost")


def test_an_address_of_no_redis_is_refused() -> None:
    with pytest.raises(ConfigError, match="no address of a Redis server"):
        RedisLimiter("http://localhost")
