"""Promises about money, limits, the cache and identity, each tried where it is most likely to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
from serving_asking import ADA, DEAR, NOTHING, QUESTION, made, route, streamed, target_of
from serving_plane import CHEAP, FREE, Plane, Scripted, api_key

from mainstay.core.errors import MainstayError
from mainstay.govern.types import Budget, Limits
from mainstay.models import ProviderStreamBroken, ProviderUnreachable, worst_case_nusd
from mainstay.models.tokens import call_token_ceiling, token_estimate
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Delta,
    Embeddings,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolCallDelta,
    Usage,
)
from mainstay.serving import Call, ChatRequest, ask
from mainstay.serving.admission import asks_for_cache, need_of
from mainstay.serving.dry_run import dry_run
from mainstay.serving.embeddings import embed
from mainstay.serving.errors import (
    BadField,
    BudgetInFlight,
    InsufficientQuota,
    ModelNotAllowed,
    PriceUnknown,
    RequestExceedsBudget,
    UpstreamFailed,
)
from mainstay.serving.schema_check import problem_with
from mainstay.serving.structured import StructureNotMet
from mainstay.serving.surfaces import SURFACES


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


# --- a hard budget is never overspent ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_wherever_a_request_is_cancelled_nothing_stays_held_and_no_more_than_was_held_is_spent(
    plane: Plane, stream: bool
) -> None:
    key = api_key("ms-cut", budget_nusd=10**9)
    plane.knows(key)
    model = Yielding()
    model.says("a ", "b ", "c ", "d ", usage=Usage(10, 4))
    plane.adds("acme/slow", target_of(model, "slow"))
    call = made(key, "acme/slow", stream=stream)
    worst = need_of(call.request.call, target_of(model, "slow")).worst_nusd
    before, ended = 0, False

    for steps in range(100):
        task = asyncio.create_task(streamed(plane, call))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            ended = True
        state = await plane.budget(key)
        assert state.held_nusd == 0
        assert worst is not None
        assert 0 <= state.spent_nusd - before <= worst
        before = state.spent_nusd
        if ended:
            break

    assert ended


async def test_many_requests_of_every_outcome_never_overspend_one_budget(plane: Plane) -> None:
    key = api_key("ms-many", budget_nusd=9_000_000)
    plane.knows(key)
    kinds = (
        [Delta(text="word "), Delta(text="word "), Delta(finish_reason="stop")],
        [ProviderUnreachable("gone", provider="p")],
        [Delta(text="word "), ProviderStreamBroken("cut", provider="p")],
        [ProviderStreamBroken("cut", provider="p")],
    )
    for number, steps in enumerate(kinds):
        model = Spends(f"p{number}")
        model.plays(*steps)
        spare = Spends(f"spare{number}")
        spare.says("dear ")
        targets = target_of(model, f"m{number}"), target_of(spare, f"s{number}", price=DEAR)
        route(plane, f"route-{number}", *targets)

    async def one(number: int) -> None:
        stream, n = bool(number % 2), 1 + number % 3
        call = made(key, f"route-{number % 4}", stream=stream, max_tokens=900, n=n)
        with suppress(MainstayError, asyncio.CancelledError):
            await streamed(plane, call)

    for _ in range(4):
        tasks = [asyncio.create_task(one(number)) for number in range(24)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0)
            if number % 5 == 0:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert 0 < state.spent_nusd <= state.limit_nusd


async def test_a_provider_that_reports_more_than_was_held_is_recorded_truthfully_and_ends_the_budget(
    plane: Plane,
) -> None:
    key = api_key("ms-over", budget_nusd=1_000_000)
    plane.knows(key)
    plane.model.says("thought for long", usage=Usage(10, 50_000, reasoning_tokens=49_990))

    final = await ask(made(key, max_tokens=100), plane.deps)

    state = await plane.budget(key)
    root = plane.sink.traces[-1][0]
    assert final.cost_nusd == state.spent_nusd == 10 * 100 + 50_000 * 400
    assert root.attributes["mainstay.budget.settled_nusd"] > root.attributes["mainstay.budget.held_nusd"]
    with pytest.raises(InsufficientQuota):
        await ask(made(key, max_tokens=100), plane.deps)


async def test_a_failed_attempt_is_paid_for_and_a_dearer_fallback_tops_the_hold_up(plane: Plane) -> None:
    key = api_key("ms-fall", budget_nusd=10**9)
    plane.knows(key)
    first, spare = Scripted("first"), Scripted("spare")
    first.plays(ProviderStreamBroken("cut", provider="first"))
    spare.says("fine", usage=Usage(8, 2))
    route(plane, "pair", target_of(first, "one"), target_of(spare, "two", price=DEAR))

    final = await ask(made(key, "pair"), plane.deps)

    sent = token_estimate(QUESTION[0].content)
    assert final.cost_nusd == sent * 100 + 8 * 1000 + 2 * 4000
    assert final.cost_source == "computed"
    assert (await plane.budget(key)).spent_nusd == final.cost_nusd


async def test_a_free_fallback_answers_though_the_failed_attempt_cost_more_than_was_held(
    plane: Plane,
) -> None:
    key = api_key("ms-free", budget_nusd=600_000)
    plane.knows(key)
    first, spare = Scripted("first"), Scripted("spare")
    first.plays(Delta(usage=Usage(10_000, 9000)), ProviderStreamBroken("cut", provider="first"))
    spare.says("free")
    route(plane, "pair", target_of(first, "one"), target_of(spare, "two", price=FREE))

    _, final = await streamed(plane, made(key, "pair", stream=True))

    assert final.text == "free"
    assert spare.calls[0].max_tokens == 1000
    assert (await plane.budget(key)).held_nusd == 0


async def test_what_a_dear_fallback_would_need_is_given_back_once_a_free_target_is_chosen(
    plane: Plane,
) -> None:
    key = api_key("ms-back", budget_nusd=10**9)
    plane.knows(key)
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
    key = api_key("ms-tight", budget_nusd=least - 1)
    plane.knows(key)

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
    key = api_key("ms-near-end", budget_nusd=least - 1)
    plane.knows(key)

    final = await ask(made(key, "pair"), plane.deps)

    assert final.text == "cheap"


async def test_a_clamp_leaves_more_than_the_thinking_budget_or_refuses(plane: Plane) -> None:
    plane.model.says("fine")
    call = made(max_tokens=900, reasoning=Reasoning(budget_tokens=400))
    need = need_of(call.request.call, target_of(plane.model, "small"))
    assert need.least_nusd is not None
    enough = api_key("ms-enough", budget_nusd=need.least_nusd)
    short = api_key("ms-short", budget_nusd=need.least_nusd - 1)
    plane.knows(enough, short)

    await ask(replace(call, key=enough), plane.deps)
    with pytest.raises(RequestExceedsBudget) as refused:
        await ask(replace(call, key=short), plane.deps)

    (sent,) = plane.model.calls
    assert sent.max_tokens is not None
    assert 400 < sent.max_tokens < 900
    fits = refused.value.detail["max_tokens_that_fit"]
    assert fits is None or fits > 400


def test_a_thinking_budget_without_max_tokens_fits_the_limit_that_a_budget_sets(plane: Plane) -> None:
    target = target_of(plane.model, "open", max_output_tokens=None)

    need = need_of(made(reasoning=Reasoning(budget_tokens=20_000)).request.call, target)

    assert need.output_tokens > 20_000


async def test_every_choice_is_held_and_every_choice_of_a_cut_stream_is_charged(plane: Plane) -> None:
    key = api_key("ms-n", budget_nusd=10**9)
    plane.knows(key)
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
    asked = token_estimate(QUESTION[0].content)
    state = await plane.budget(key)
    assert abs(state.spent_nusd - (asked * 100 + written * 400)) <= 2 * 400
    one, two = (need_of(made(n=n).request.call, target_of(plane.model, "small")) for n in (1, 2))
    assert two.worst_nusd is not None
    assert one.worst_nusd is not None
    assert two.worst_nusd - one.worst_nusd == 1000 * 400


async def test_counts_told_before_a_cut_do_not_hide_what_came_after_them(plane: Plane) -> None:
    key = api_key("ms-running", budget_nusd=10**9)
    plane.knows(key)
    plane.model.plays(
        Delta(text="one", usage=Usage(500, 1)),
        Delta(text=" and many more words" * 50),
        ProviderStreamBroken("cut", provider="scripted"),
    )

    with pytest.raises(UpstreamFailed):
        await streamed(plane, made(key, stream=True))

    assert (await plane.budget(key)).spent_nusd > 500 * 100 + 200 * 400


async def test_a_dearer_tier_of_service_is_an_unknown_price(plane: Plane) -> None:
    key = api_key("ms-tier", budget_nusd=10**9)
    plane.knows(key)
    plane.model.says("fine")

    with pytest.raises(PriceUnknown):
        await ask(made(key, extra={"service_tier": "priority"}), plane.deps)
    unbudgeted = await ask(made(extra={"service_tier": "priority"}), plane.deps)
    usual = await ask(made(key, extra={"service_tier": "auto"}), plane.deps)

    assert (unbudgeted.cost_nusd, unbudgeted.cost_source) == (None, "unknown")
    assert usual.cost_nusd == 10 * 100 + 5 * 400


def test_what_providers_add_for_tools_and_what_a_body_passes_on_unread_are_held(plane: Plane) -> None:
    plain = ChatCall("", QUESTION)
    body = {"messages": [{"role": "assistant", "content": "x", "reasoning_details": [{"text": "y" * 5000}]}]}

    assert call_token_ceiling(replace(plain, tools=(Tool("t"),))) - call_token_ceiling(plain) > 1000
    schema = ResponseFormat({"type": "object"})
    assert call_token_ceiling(replace(plain, response_format=schema)) - call_token_ceiling(plain) > 1000
    assert call_token_ceiling(replace(plain, source=body)) - call_token_ceiling(plain) > 5000


async def test_a_masked_text_longer_than_what_it_hides_is_held_as_it_is_sent(plane: Plane) -> None:
    from serving_plane import RULES

    key = api_key("ms-mask", budget_nusd=10**9)
    plane.knows(key)
    plane.guards_models_with(RULES)
    plane.model.says("fine", usage=Usage(10, 5))
    text = "a@b.co " * 40

    await ask(made(key, messages=(ChatMessage("user", text),)), plane.deps)

    (sent,) = plane.model.calls
    assert len(sent.messages[0].content) > len(text)
    held = plane.sink.traces[-1][0].attributes["mainstay.budget.held_nusd"]
    assert held == need_of(sent, target_of(plane.model, "small")).worst_nusd


MARK = {"cache_control": {"type": "ephemeral"}}
MARKED: tuple[dict[str, Any], ...] = (
    {"cache_control": {"type": "ephemeral"}},
    {"system": [{"type": "text", "text": "s", **MARK}]},
    {"tools": [{"name": "f", "input_schema": {}, **MARK}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **MARK}]}]},
    {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", **MARK}]}]},
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "text", "text": "r", **MARK}],
                    }
                ],
            }
        ]
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "url", "url": "https://a.example"}, **MARK}
                ],
            }
        ]
    },
    {
        "messages": [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}, **MARK}],
            }
        ]
    },
)


@pytest.mark.parametrize("marked", MARKED)
def test_wherever_a_body_asks_for_the_providers_cache_its_writing_is_held(marked: dict[str, Any]) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}

    assert not asks_for_cache(SURFACES["messages"].read(body).call)
    assert asks_for_cache(SURFACES["messages"].read({**body, **marked}).call)


class Plain(Spends):
    supports: frozenset[Capability] = frozenset({"temperature", "top_p", "seed"})


async def test_the_call_that_mends_a_schema_is_paid_within_the_same_hold(plane: Plane) -> None:
    model = Plain()
    model.says("no json")
    model.says('{"a": 1}')
    plane.adds("acme/plain", target_of(model, "plain"))
    key = api_key("ms-mend", budget_nusd=10**9)
    plane.knows(key)
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
    key = api_key("ms-no-mend", budget_nusd=budget_nusd)
    plane.knows(key)

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


async def test_a_settlement_that_fails_leaves_no_twin_waiting(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = api_key("ms-broken", budget_nusd=10**9)
    plane.knows(key)
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


# --- limits, dry runs, identity ----------------------------------------------------------------------------


async def test_a_dry_run_holds_counts_and_spends_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=1, concurrent_requests=1, budgets=(Budget(10**9, "month"),))
    key = api_key("ms-dry", limits=limits)
    plane.knows(key)
    plane.model.says("fine")

    reports = [await dry_run(made(key), plane.deps) for _ in range(3)]
    await ask(made(key), plane.deps)
    refused = await dry_run(made(key), plane.deps)

    assert [report["refusal"] for report in reports] == [None] * 3
    assert refused["refusal"]["code"] == "rate_limit_exceeded"
    assert len(plane.sink.traces) == 1


async def test_a_dry_run_of_a_name_that_is_not_the_keys_is_refused(plane: Plane) -> None:
    key = api_key("ms-narrow", models=("acme/small",))
    plane.knows(key)

    with pytest.raises(ModelNotAllowed):
        await dry_run(made(key, "bot"), plane.deps)


async def test_a_refused_request_counts_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=2, concurrent_requests=5, budgets=(Budget(1000, "month"),))
    key = api_key("ms-refused", limits=limits)
    plane.knows(key)
    for _ in range(5):
        with pytest.raises(RequestExceedsBudget):
            await ask(made(key), plane.deps)

    hold = await plane.deps.limiter.reserve(
        plane.deps.snapshots.current.scopes_of(key, None), NOTHING
    )  # fmt: skip

    assert hold.rate is not None
    assert hold.rate.remaining == 1
    plane.deps.limiter.settle(hold, 0, 0)


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
    key = api_key("ms-embed", budget_nusd=10**9)
    plane.knows(key)
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


async def test_a_key_revoked_while_its_body_arrives_is_refused(plane: Plane) -> None:
    key = api_key("ms-late")
    plane.knows(key)
    plane.model.says("fine")
    gateway = plane.gateway()
    body = orjson.dumps({"model": "acme/small", "messages": [{"role": "user", "content": "hi"}]})
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        plane.knows(replace(key, revoked_at_us=1))
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer ms-late")],
    }
    await gateway(scope, receive, send)

    assert sent[0]["status"] == 401
    assert plane.model.calls == []


@pytest.mark.parametrize("headers", [{"authorization": "Bearer ms-narrow"}, {"x-api-key": "ms-narrow"}])
async def test_a_keys_names_hold_on_every_path_by_either_header(
    serve: Any, plane: Plane, headers: dict[str, str]
) -> None:
    plane.knows(api_key("ms-narrow", models=("other",)))
    url = (await serve(plane.gateway())).removesuffix("/v1")
    messages = [{"role": "user", "content": "hi"}]
    chat = {"model": "acme/small", "messages": messages}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/chat/completions?dry_run=cost", chat),
        ("/v1/chat/completions", {**chat, "model": "bot"}),
        ("/v1/chat/completions", {**chat, "model": "bot@r1"}),
        ("/v1/completions", {"model": "acme/small", "prompt": "hi"}),
        ("/v1/messages", {**chat, "max_tokens": 5}),
        ("/v1/messages/count_tokens", chat),
        ("/v1/responses", {"model": "acme/small", "input": "hi"}),
        ("/v1/responses/input_tokens", {"model": "acme/small", "input": "hi"}),
        ("/v1/embeddings", {"model": "acme/small", "input": "hi"}),
    ]

    async with aiohttp.ClientSession(url, headers=headers) as client:
        statuses = [await _status(client.post(path, json=body)) for path, body in asked]
        async with client.get("/v1/models") as reply:
            listed = (await reply.json())["data"]
        one = await _status(client.get("/v1/models/acme/small"))

    assert statuses == [403] * len(asked)
    assert (listed, one) == ([], 404)


async def _status(request: Any) -> int:
    async with request as reply:
        await reply.read()
        return int(reply.status)


# --- structured output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["http://169.254.169.254/latest", "file:///etc/passwd", "#/nowhere"])
async def test_a_schema_cannot_make_the_gateway_fetch_anything(
    plane: Plane, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: fetched.append(args))
    model = Plain()
    model.says("{}")
    plane.adds("acme/plain", target_of(model, "plain", price=FREE))

    with pytest.raises(BadField):
        await ask(made(model="acme/plain", response_format=ResponseFormat({"$ref": reference})), plane.deps)

    assert fetched == []


def test_no_schema_keeps_the_process_busy() -> None:
    doubling: dict[str, Any] = {"d0": {"type": "object"}}
    for level in range(1, 40):
        both = {"$ref": f"#/$defs/d{level - 1}"}
        doubling[f"d{level}"] = {"allOf": [both, both]}
    slow = "^(a+)+$"
    text = '"' + "a" * 40 + '!"'

    with pytest.raises(BadField, match="too long"):
        problem_with("{}", {"$defs": doubling, "$ref": "#/$defs/d39"})
    with pytest.raises(BadField, match="patternProperties"):
        problem_with("{}", {"additionalProperties": False, "patternProperties": {slow: {}}})
    with pytest.raises(BadField, match="followed"):
        problem_with("{}", {"$ref": "#"})
    with pytest.raises(BadField, match="pattern"):
        problem_with(text, {"pattern": "(?=a)a"})
    old_draft = {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": slow}
    assert "does not match" in str(problem_with(text, {"allOf": [old_draft]}))
    assert problem_with('"aaa"', {"pattern": slow}) is None
    assert problem_with('{"$schema": 1}', {"properties": {"$schema": {"type": "string"}}}) is not None


def test_the_worst_case_covers_every_class_of_token() -> None:
    price = replace(CHEAP, cache_write_nusd=125.0, cache_write_1h_nusd=200.0, audio_output_nusd=900.0)

    assert worst_case_nusd(10, 10, price) == 10 * 200 + 10 * 900
    assert worst_case_nusd(10, 10, price, cache_writes=False) == 10 * 100 + 10 * 900
