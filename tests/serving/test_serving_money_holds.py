"""What is held before a call: the worst case, never less; and a hard budget that is never overspent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import openai
import pytest
from serving_asking import ASKED, DEAR, asked, made, route, streamed, target_of
from serving_door import ASK, client
from serving_plane import CHEAP, CHECK_IN, RULES, Plane, api_key
from serving_providers import Spends, Yielding

from mainstay.models import ProviderStreamBroken, ProviderUnreachable, message_token_ceiling, worst_case_nusd
from mainstay.models.tokens import call_token_ceiling
from mainstay.models.types import ChatCall, ChatMessage, Delta, Reasoning, ResponseFormat, Tool, Usage
from mainstay.serving import ask
from mainstay.serving.admission import asks_for_cache, need_of
from mainstay.serving.errors import BudgetInFlight, InsufficientQuota, RequestExceedsBudget
from mainstay.serving.surfaces import SURFACES


@pytest.mark.parametrize("stream", [False, True])
async def test_wherever_a_request_is_cancelled_nothing_stays_held_and_no_more_than_was_held_is_spent(
    plane: Plane, stream: bool
) -> None:
    key = plane.key(budget_nusd=10**9)
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
    key = plane.key(budget_nusd=9_000_000)
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
        await streamed(plane, made(key, f"route-{number % 4}", stream=stream, max_tokens=900, n=n))

    ends: list[BaseException | None] = []
    for _ in range(4):
        tasks = [asyncio.create_task(one(number)) for number in range(24)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0)
            if number % 5 == 0:
                task.cancel()
        ends += await asyncio.gather(*tasks, return_exceptions=True)

    answered, cancelled = ends.count(None), sum(isinstance(end, asyncio.CancelledError) for end in ends)
    refused = sum(isinstance(end, (InsufficientQuota, BudgetInFlight)) for end in ends)
    assert min(answered, cancelled, refused) > 0
    assert answered + cancelled + refused == len(ends)
    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert 0 < state.spent_nusd <= state.limit_nusd


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


def test_what_providers_add_for_tools_and_what_a_body_passes_on_unread_are_held(plane: Plane) -> None:
    plain = ChatCall("", ASKED)
    body = {"messages": [{"role": "assistant", "content": "x", "reasoning_details": [{"text": "y" * 5000}]}]}

    assert call_token_ceiling(replace(plain, tools=(Tool("t"),))) - call_token_ceiling(plain) > 1000
    schema = ResponseFormat({"type": "object"})
    assert call_token_ceiling(replace(plain, response_format=schema)) - call_token_ceiling(plain) > 1000
    assert call_token_ceiling(replace(plain, source=body)) - call_token_ceiling(plain) > 5000


async def test_a_masked_text_longer_than_what_it_hides_is_held_as_it_is_sent(plane: Plane) -> None:

    key = plane.key(budget_nusd=10**9)
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


def test_the_worst_case_covers_every_class_of_token() -> None:
    price = replace(CHEAP, cache_write_nusd=125.0, cache_write_1h_nusd=200.0, audio_output_nusd=900.0)

    assert worst_case_nusd(10, 10, price) == 10 * 200 + 10 * 900
    assert worst_case_nusd(10, 10, price, cache_writes=False) == 10 * 100 + 10 * 900


async def test_the_hold_grows_to_the_rendered_prompt_and_ends_empty(plane: Plane) -> None:
    key = plane.key(budget_nusd=10**9)
    plane.model.says(CHECK_IN)
    await asked(plane, key=key)
    state = await plane.budget(key)
    assert (state.spent_nusd, state.held_nusd) == (3000, 0)
    settle = plane.sink.traces[-1][0].attributes
    assert settle["mainstay.budget.settled_nusd"] == 3000
    assert settle["mainstay.budget.held_nusd"] == 64 * 400 + 100 * _bytes_of(plane)  # type: ignore[operator]


def _bytes_of(plane: Plane) -> int:
    return message_token_ceiling(plane.model.calls[0].messages)


async def test_forwarded_fields_count_into_the_worst_case(plane: Plane) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "description": "long " * 2000}}
    key = plane.key(budget_nusd=500_000)  # 10,000 bytes at 100 nano-dollars each are twice that
    with pytest.raises(RequestExceedsBudget):
        await asked(
            plane, model="acme/small", key=key, extra={"response_format": schema}, source_format="openai.chat"
        )
    assert plane.model.calls == []


async def test_a_hard_budget_lowers_max_tokens_to_what_it_pays_for(serve: Any, plane: Plane) -> None:
    key = plane.key(budget_nusd=30_000)
    plane.model.says("Hello.", usage=Usage(10, 5))
    async with client(serve, plane) as sdk:
        await sdk.chat.completions.create(model="acme/small", messages=ASK, max_tokens=900)
    (sent,) = plane.model.calls
    assert sent.max_tokens == (30_000 - call_token_ceiling(sent) * 100) // 400
    state = await plane.budget(key)
    assert (state.spent_nusd, state.held_nusd) == (3000, 0)


async def test_many_streams_on_one_small_budget_never_overspend(serve: Any, plane: Plane) -> None:
    key = plane.key(budget_nusd=100_000)
    plane.model.says("Hello", " there.", usage=Usage(24, 16))

    async def one(sdk: openai.AsyncOpenAI) -> None:
        try:
            stream = await sdk.chat.completions.create(
                model="acme/small", messages=ASK, stream=True, max_tokens=16
            )
            async for _ in stream:
                pass
        except openai.RateLimitError:
            return

    async with client(serve, plane) as sdk:
        await asyncio.gather(*(one(sdk) for _ in range(40)))
    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert 0 < state.spent_nusd <= 100_000
