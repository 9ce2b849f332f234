"""What a route's next target costs: failed attempts are paid, dearer ones topped up, unpayable ones not asked."""

from __future__ import annotations

import asyncio

import pytest
from serving_asking import DEAR, QUESTION, made, route, streamed, target_of
from serving_plane import FREE, Plane, Scripted

from mainstay.models import ProviderStreamBroken, ProviderUnreachable
from mainstay.models.tokens import token_estimate
from mainstay.models.types import Delta, Usage
from mainstay.serving import ask
from mainstay.serving.admission import need_of
from mainstay.serving.errors import RequestExceedsBudget


async def test_a_failed_attempt_is_paid_for_and_a_dearer_fallback_tops_the_hold_up(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    first, spare = Scripted("first"), Scripted("spare")
    first.plays(ProviderStreamBroken("cut", provider="first"))
    spare.says("fine", usage=Usage(8, 2))
    route(plane, "pair", target_of(first, "one"), target_of(spare, "two", price=DEAR))

    final = await ask(made(key, "pair"), plane.deps)

    sent = token_estimate(QUESTION)
    assert final.cost_nusd == sent * 100 + 8 * 1000 + 2 * 4000
    assert final.cost_source == "computed"
    assert (await plane.budget(key)).spent_nusd == final.cost_nusd


async def test_a_free_fallback_answers_though_the_failed_attempt_cost_more_than_was_held(
    plane: Plane,
) -> None:
    key = plane.key(budget_nusd=600_000)
    first, spare = Scripted("first"), Scripted("spare")
    first.plays(Delta(usage=Usage(10_000, 9000)), ProviderStreamBroken("cut", provider="first"))
    spare.says("free")
    route(plane, "pair", target_of(first, "one"), target_of(spare, "two", price=FREE))

    _, final = await streamed(plane, made(key, "pair", stream=True))

    assert final.text == "free"
    assert spare.calls[0].max_tokens == 1000
    state = await plane.budget(key)
    assert state.spent_nusd >= token_estimate(QUESTION) * 100
    assert state.held_nusd == 0


async def test_what_a_dear_fallback_would_need_is_given_back_once_a_free_target_is_chosen(
    plane: Plane,
) -> None:
    key = plane.key(budget_nusd=10**9)
    gate = asyncio.Event()
    free = Scripted("free")
    free.plays(gate, Delta(text="fine", finish_reason="stop", usage=Usage(1, 1)))
    route(plane, "pair", target_of(free, "one", price=FREE), target_of(Scripted(), "two", price=DEAR))
    asking = asyncio.create_task(ask(made(key, "pair"), plane.deps))

    await free.started.wait()

    assert (await plane.budget(key)).held_nusd == 0
    gate.set()
    assert (await asking).cost_nusd == 0


async def test_a_fallback_that_the_budget_cannot_pay_is_not_asked(plane: Plane) -> None:
    first, spare = Scripted("first"), Scripted("spare")
    first.plays(ProviderUnreachable("gone", provider="first"))
    spare.says("fine")
    cheap, dear = target_of(first, "one"), target_of(spare, "two", price=DEAR)
    route(plane, "pair", cheap, dear)
    worst = need_of(made().request.call, cheap).worst_nusd
    least = need_of(made().request.call, dear).least_nusd
    assert worst is not None
    assert least is not None
    key = plane.key(budget_nusd=least - 1)

    with pytest.raises(RequestExceedsBudget):
        await ask(made(key, "pair"), plane.deps)

    assert spare.calls == []
    assert len(first.calls) == 1
    assert (await plane.budget(key)).spent_nusd == (await plane.budget(key)).held_nusd == 0


async def test_a_route_answers_while_its_cheap_target_can_be_paid_for(plane: Plane) -> None:
    first, spare = Scripted("first"), Scripted("spare")
    first.says("cheap", usage=Usage(10, 1))
    spare.says("dear")
    cheap, dear = target_of(first, "one"), target_of(spare, "two", price=DEAR)
    route(plane, "pair", cheap, dear)
    least = need_of(made().request.call, dear).least_nusd
    assert least is not None
    key = plane.key(budget_nusd=least - 1)

    final = await ask(made(key, "pair"), plane.deps)

    assert final.text == "cheap"
