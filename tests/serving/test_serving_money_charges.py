"""What an answer is charged: the same streamed and whole, and all that was said before it was cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from serving_asking import ADA, QUESTION, made, streamed, target_of
from serving_plane import Plane, Scripted
from serving_providers import Plain

from mainstay.models import ProviderStreamBroken
from mainstay.models.tokens import call_token_ceiling, token_estimate
from mainstay.models.types import ChatCall, Delta, Embeddings, ResponseFormat, ToolCallDelta, Usage
from mainstay.serving import Call, ChatRequest, ask
from mainstay.serving.admission import need_of
from mainstay.serving.embeddings import embed
from mainstay.serving.errors import (
    BudgetInFlight,
    InsufficientQuota,
    PriceUnknown,
    RequestExceedsBudget,
    UpstreamFailed,
)
from mainstay.serving.structured import StructureNotMet


async def test_a_provider_that_reports_more_than_was_held_is_recorded_truthfully_and_ends_the_budget(
    plane: Plane,
) -> None:
    key = plane.key(budget_nusd=1_000_000)
    plane.model.says("thought for long", usage=Usage(10, 50_000, reasoning_tokens=49_990))

    final = await ask(made(key, max_tokens=100), plane.deps)

    state = await plane.budget(key)
    root = plane.sink.traces[-1][0]
    assert final.cost_nusd == state.spent_nusd == 10 * 100 + 50_000 * 400
    assert root.attributes["mainstay.budget.settled_nusd"] > root.attributes["mainstay.budget.held_nusd"]
    with pytest.raises(InsufficientQuota):
        await ask(made(key, max_tokens=100), plane.deps)


async def test_every_choice_is_held_and_every_choice_of_a_cut_stream_is_charged(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    words = "several words that are not the first choice " * 20
    plane.model.plays(
        Delta(text="short", index=0),
        Delta(text=words, index=1),
        Delta(reasoning=words, index=0),
        Delta(tool_calls=(ToolCallDelta(0, "c1", "look_up", words),), index=1),
        ProviderStreamBroken("cut", provider="scripted"),
    )

    with pytest.raises(UpstreamFailed):
        await streamed(plane, made(key, stream=True, n=2))

    written = token_estimate("short" + words * 3 + "look_up")
    asked = token_estimate(QUESTION)
    state = await plane.budget(key)
    assert abs(state.spent_nusd - (asked * 100 + written * 400)) <= 2 * 400
    one, two = (need_of(made(n=n).request.call, target_of(plane.model, "small")) for n in (1, 2))
    assert two.worst_nusd is not None
    assert one.worst_nusd is not None
    assert two.worst_nusd - one.worst_nusd == 1000 * 400


async def test_counts_told_before_a_cut_do_not_hide_what_came_after_them(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    plane.model.plays(
        Delta(text="one", usage=Usage(500, 1)),
        Delta(text=" and many more words" * 50),
        ProviderStreamBroken("cut", provider="scripted"),
    )

    with pytest.raises(UpstreamFailed):
        await streamed(plane, made(key, stream=True))

    said = "one" + " and many more words" * 50
    assert (await plane.budget(key)).spent_nusd == 500 * 100 + token_estimate(said) * 400


async def test_a_dearer_tier_of_service_is_an_unknown_price(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    plane.model.says("fine")

    with pytest.raises(PriceUnknown):
        await ask(made(key, extra={"service_tier": "priority"}), plane.deps)
    unbudgeted = await ask(made(extra={"service_tier": "priority"}), plane.deps)
    usual = await ask(made(key, extra={"service_tier": "auto"}), plane.deps)

    assert (unbudgeted.cost_nusd, unbudgeted.cost_source) == (None, "unknown")
    assert usual.cost_nusd == 10 * 100 + 5 * 400


async def test_the_call_that_mends_a_schema_is_paid_within_the_same_hold(plane: Plane) -> None:
    model = Plain()
    model.says("no json")
    model.says('{"a": 1}')
    plane.adds("acme/plain", target_of(model, "plain"))
    key = plane.key(budget_nusd=10**9)
    wanted = ResponseFormat({"type": "object", "required": ["a"]})

    final = await ask(made(key, "acme/plain", response_format=wanted), plane.deps)

    assert final.text == '{"a": 1}'
    state = await plane.budget(key)
    read = sum(map(call_token_ceiling, model.calls))
    assert state.spent_nusd == final.cost_nusd == read * 100 + 2000 * 400
    assert state.held_nusd == 0


@pytest.mark.parametrize("budget_nusd", [430_000, 460_000, 500_000, 700_000])
async def test_a_mend_spends_no_more_than_the_budget_has_left(plane: Plane, budget_nusd: int) -> None:
    model = Plain()
    model.says("no json")
    plane.adds("acme/plain", target_of(model, "plain"))
    wanted = ResponseFormat({"type": "object", "required": ["a"]})
    key = plane.key(budget_nusd=budget_nusd)

    with pytest.raises((InsufficientQuota, BudgetInFlight, RequestExceedsBudget, StructureNotMet)):
        await ask(made(key, "acme/plain", response_format=wanted), plane.deps)

    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert 400_000 <= state.spent_nusd <= state.limit_nusd


async def test_streamed_and_whole_cost_the_same_to_the_nano_dollar(plane: Plane) -> None:
    usage = Usage(1000, 77, cached_input_tokens=333, reasoning_tokens=20, cache_write_tokens=111)
    plane.model.says("a ", "b ", usage=usage)

    whole = await ask(made(), plane.deps)
    _, final = await streamed(plane, made(stream=True))

    assert whole.cost_nusd == final.cost_nusd
    assert (whole.usage, whole.cost_source) == (final.usage, final.cost_source) == (usage, "provider")


async def test_an_answer_without_counts_costs_the_same_streamed_and_whole(plane: Plane) -> None:
    text = "a long answer of many words " * 40
    plane.model.plays(Delta(text=text), Delta(finish_reason="stop"))

    whole = await ask(made(), plane.deps)
    _, final = await streamed(plane, made(stream=True))

    assert whole.cost_nusd == final.cost_nusd
    assert whole.cost_source == final.cost_source == "computed"
    assert whole.usage.output_tokens == token_estimate(text)


class Embeds(Scripted):
    """An embedding provider that answers when it is let."""

    def __init__(self) -> None:
        super().__init__("embeds")
        self.let = asyncio.Event()

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        self.started.set()
        await self.let.wait()
        return Embeddings(tuple((0.0, 1.0) for _ in texts), 12)


async def test_embeddings_whose_caller_leaves_cost_what_was_sent(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    provider = Embeds()
    plane.adds("acme/embed", target_of(provider, "embed"))
    text = "many words to embed " * 50
    call = Call(ChatRequest("", ChatCall("", ())), ADA, key)
    task = asyncio.create_task(embed({"model": "acme/embed", "input": text}, None, call, plane.deps))
    await provider.started.wait()

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert state.spent_nusd == token_estimate(text) * 100
    provider.let.set()
    await embed({"model": "acme/embed", "input": text}, None, call, plane.deps)
    assert (await plane.budget(key)).spent_nusd == state.spent_nusd + 12 * 100
