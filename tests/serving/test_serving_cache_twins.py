"""Twins of a request share one answer fairly: what it cost, whose deadline counts, who goes on when it fails."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from serving_asking import made, requests_left, route, streamed, target_of
from serving_plane import Plane

from mainstay.govern.types import Budget, Limits
from mainstay.models import ProviderUnreachable
from mainstay.models.types import Delta, Usage
from mainstay.serving import ask
from mainstay.serving.errors import DeadlineExceeded, UpstreamFailed


async def test_a_settlement_that_fails_leaves_no_twin_waiting(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = plane.key(budget_nusd=10**9)
    gate = asyncio.Event()
    plane.model.plays(gate, Delta(text="x", finish_reason="stop", usage=Usage(1, 1)))
    leader = asyncio.create_task(ask(made(key, cache="use"), plane.deps))
    await plane.model.started.wait()
    twin = asyncio.create_task(ask(made(cache="use"), plane.deps))
    await asyncio.sleep(0)

    def broken(*_: Any) -> None:
        raise RuntimeError("the limiter broke")

    monkeypatch.setattr(type(plane.deps.limiter), "settle", broken)
    gate.set()
    with pytest.raises(RuntimeError):
        await leader

    assert (await asyncio.wait_for(twin, 5)).text == "x"


async def test_a_twin_streams_the_leaders_answer_for_nothing_within_its_own_limits(plane: Plane) -> None:
    key = plane.key(limits=Limits(requests_per_minute=60, budgets=(Budget(10**9, "month"),)))
    gate = asyncio.Event()
    plane.model.plays(Delta(text="a "), gate, Delta(text="b"), Delta(finish_reason="stop", usage=Usage(9, 2)))
    leader = asyncio.create_task(ask(made(key, cache="use"), plane.deps))
    await plane.model.started.wait()
    twin = asyncio.create_task(streamed(plane, made(key, cache="use", stream=True)))
    await asyncio.sleep(0)
    gate.set()

    first, (deltas, second) = await leader, await twin

    assert len(plane.model.calls) == 1
    assert "".join(delta.text for delta in deltas) == first.text == "a b"
    assert (second.cost_nusd, second.cost_source, second.saved_nusd) == (0, "cache", first.cost_nusd)
    assert first.trace_id != second.trace_id
    state = await plane.budget(key)
    assert (state.spent_nusd, state.held_nusd) == (first.cost_nusd, 0)
    assert await requests_left(plane, key) == 57


async def test_a_cancelled_leader_releases_its_twins(plane: Plane) -> None:
    plane.model.plays(asyncio.Event())
    plane.model.says("fine")
    leader = asyncio.create_task(ask(made(cache="use"), plane.deps))
    await plane.model.started.wait()
    twins = [asyncio.create_task(ask(made(cache="use"), plane.deps)) for _ in range(3)]
    await asyncio.sleep(0)

    leader.cancel()

    assert [final.text for final in await asyncio.gather(*twins)] == ["fine"] * 3


async def test_a_twin_waits_no_longer_than_its_own_deadline(plane: Plane) -> None:
    plane.model.plays(asyncio.Event())
    leader = asyncio.create_task(ask(made(cache="use"), plane.deps))
    await plane.model.started.wait()

    with pytest.raises(DeadlineExceeded):
        await ask(made(cache="use", deadline_s=0.02), plane.deps)

    assert not leader.done()
    leader.cancel()
    with suppress(asyncio.CancelledError):
        await leader


async def test_a_twin_whose_leader_fails_takes_nothing_older_than_it_allows(plane: Plane) -> None:
    plane.model.says("old")
    await ask(made(cache="use"), plane.deps)
    gate = asyncio.Event()
    plane.model.scripts = [[gate, ProviderUnreachable("gone", provider="p")]]
    route(plane, "acme/small", target_of(plane.model, "small"), attempts_max=1)
    leader = asyncio.create_task(ask(made(cache="use", max_age_s=0.0), plane.deps))
    plane.model.started.clear()
    await plane.model.started.wait()
    twin = asyncio.create_task(ask(made(cache="use", max_age_s=0.0), plane.deps))
    await asyncio.sleep(0)
    plane.model.scripts = [[Delta(text="new", finish_reason="stop")]]

    gate.set()

    with pytest.raises(UpstreamFailed):
        await leader
    assert (await twin).text == "new"
