"""The cache never gives an answer to a question that differs, and twins of a request share one answer fairly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from serving_asking import ADA, NOTHING, made, route, streamed, target_of
from serving_plane import Plane, api_key, runnable

from mainstay.delivery.types import GenerationSettings
from mainstay.govern.types import Budget, Identity, Limits
from mainstay.models import ProviderStreamBroken, ProviderUnreachable
from mainstay.models.types import (
    ChatCall,
    Delta,
    ToolCallDelta,
    Usage,
)
from mainstay.serving import ask
from mainstay.serving.cache import cache_key
from mainstay.serving.errors import (
    DeadlineExceeded,
    UpstreamFailed,
)
from mainstay.serving.surfaces import SURFACES
from mainstay.serving.types import ChatRequest, SurfaceName

# --- the cache ---------------------------------------------------------------------------------------------

CHAT: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": 2}}}
OTHER_FUNCTION = {"type": "function", "function": {"name": "g", "parameters": {}}}


def _asked(request: ChatRequest) -> tuple[SurfaceName, ChatCall]:
    return request.surface, request.call


def _schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": {"properties": properties}}}


CHAT_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"n": 2},
    {"seed": 1},
    {"seed": 2},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"top_k": 5},
    {"max_tokens": 5},
    {"max_completion_tokens": 5},
    {"stop": ["a"]},
    {"stop": "b"},
    {"user": "u1"},
    {"user": "u2"},
    {"logprobs": True},
    {"logprobs": True, "top_logprobs": 2},
    {"frequency_penalty": 1},
    {"presence_penalty": 1},
    {"logit_bias": {"1": 1}},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "high"},
    {"verbosity": "low"},
    {"metadata": {"a": "b"}},
    {"service_tier": "flex"},
    {"tools": [FUNCTION]},
    {"tools": [FUNCTION, OTHER_FUNCTION]},
    {"tools": [OTHER_FUNCTION, FUNCTION]},
    {"tools": [FUNCTION], "tool_choice": "required"},
    {"tools": [FUNCTION], "parallel_tool_calls": False},
    {"functions": [FUNCTION["function"]]},
    {"response_format": {"type": "json_object"}},
    {"response_format": _schema({"a": {}, "b": {}})},
    {"response_format": _schema({"b": {}, "a": {}})},
    {"messages": [{"role": "developer", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi", "name": "ada"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, IMAGE]}]},
    {"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "hi"}]}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}]},
    {"unknown_knob": 1},
    {"unknown_knob": 2},
)
MESSAGES: Mapping[str, Any] = {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]}
MESSAGES_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"max_tokens": 10},
    {"system": "s"},
    {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
    {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    {"thinking": {"type": "enabled", "budget_tokens": 3000}},
    {"thinking": {"type": "adaptive"}},
    {"output_config": {"effort": "low"}},
    {"stop_sequences": ["x"]},
    {"temperature": 0.1},
    {"top_k": 3},
    {"metadata": {"user_id": "u"}},
    {"tools": [{"name": "f", "input_schema": {"a": 1, "b": 1}}]},
    {"tools": [{"name": "f", "input_schema": {"b": 1, "a": 1}}]},
    {"service_tier": "standard_only"},
    {"unknown_knob": 1},
)
COMPLETIONS: Mapping[str, Any] = {"model": "m", "prompt": "hi"}
COMPLETIONS_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"prompt": "ho"},
    {"n": 2},
    {"seed": 1},
    {"stop": ["a"]},
    {"max_tokens": 3},
    {"user": "u"},
    {"unknown_knob": 1},
    {"unknown_knob": 2},
)
RESPONSES: Mapping[str, Any] = {"model": "m", "input": "hi"}
RESPONSES_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"input": "ho"},
    {"instructions": "be kind"},
    {"max_output_tokens": 99},
    {"reasoning": {"effort": "low"}},
    {"reasoning": {"effort": "low", "summary": "auto"}},
    {"text": {"verbosity": "low"}},
    {"text": {"format": {"type": "json_object"}}},
    {"include": ["message.output_text.logprobs"]},
    {"top_logprobs": 3},
    {"temperature": 0.3},
    {"tools": [{"type": "function", "name": "f", "parameters": {}}]},
    {"user": "u"},
    {"safety_identifier": "s"},
)


@pytest.mark.parametrize(
    ("surface", "base", "variants"),
    [
        ("chat", CHAT, CHAT_VARIANTS),
        ("messages", MESSAGES, MESSAGES_VARIANTS),
        ("completions", COMPLETIONS, COMPLETIONS_VARIANTS),
        ("responses", RESPONSES, RESPONSES_VARIANTS),
    ],
)
@pytest.mark.parametrize("changed_by_the_guard", [False, True])
def test_no_two_requests_that_differ_in_what_shapes_an_answer_share_one(
    surface: str, base: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], changed_by_the_guard: bool
) -> None:
    keys: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        if changed_by_the_guard and variant.keys() & {"functions", "max_completion_tokens", "metadata"}:
            continue  # without the client's body, these are the same call as another
        request = SURFACES[surface].read({**base, **variant})  # type: ignore[index]
        if changed_by_the_guard:
            request = replace(request, call=replace(request.call, source=None))
        key = cache_key(*_asked(request), ADA, "tenant", "served")
        assert key not in keys, (variant, keys.get(key))
        keys[key] = variant


def test_surfaces_tenants_groups_and_what_serves_are_told_apart() -> None:
    chat, messages = SURFACES["chat"].read(CHAT), SURFACES["messages"].read(MESSAGES)
    others = replace(ADA, groups=frozenset({"crew", "officers"}))

    keys = {
        cache_key(*_asked(chat), ADA, "t1", "s1"),
        cache_key(*_asked(messages), ADA, "t1", "s1"),
        cache_key(*_asked(chat), ADA, "t2", "s1"),
        cache_key(*_asked(chat), ADA, "t1", "s2"),
        cache_key(*_asked(chat), others, "t1", "s1"),
    }

    assert len(keys) == 5


def test_how_an_answer_is_delivered_does_not_tell_requests_apart() -> None:
    whole = SURFACES["chat"].read(CHAT)
    stream = SURFACES["chat"].read({**CHAT, "stream": True, "stream_options": {"include_usage": True}})

    assert cache_key(*_asked(whole), ADA, "t", "s") == cache_key(*_asked(stream), ADA, "t", "s")


@pytest.mark.parametrize(
    "steps",
    [
        [Delta(text="half", finish_reason="length")],
        [Delta(text="no", finish_reason="content_filter")],
        [Delta(tool_calls=(ToolCallDelta(0, "c", "f", "{}"),), finish_reason="tool_calls")],
        [Delta(text="fine", finish_reason="stop"), Delta(text="cut", index=1, finish_reason="length")],
    ],
)
async def test_what_is_cut_filtered_or_calls_tools_is_not_kept(plane: Plane, steps: list[Delta]) -> None:
    plane.model.plays(*steps)

    for _ in range(2):
        assert (await ask(made(cache="use"), plane.deps)).cache == "miss"

    assert len(plane.model.calls) == 2


async def test_a_failed_answer_is_not_kept(plane: Plane) -> None:
    plane.model.plays(Delta(text="half "), ProviderStreamBroken("cut", provider="p"))
    plane.model.says("whole")

    with pytest.raises(UpstreamFailed):
        await streamed(plane, made(cache="use", stream=True))

    assert (await ask(made(cache="use"), plane.deps)).text == "whole"


async def test_a_projects_keys_share_answers_and_strangers_do_not(plane: Plane) -> None:
    one, two = (api_key(name, project_id="p1") for name in ("ms-1", "ms-2"))
    stranger, lone = api_key("ms-3", project_id="p2"), api_key("ms-4")
    plane.knows(one, two, stranger, lone)
    plane.model.says("fine")
    states = [
        (
            await ask(
                made(key, cache="use", identity=Identity(key.id, key.name, "key", "developer")), plane.deps
            )
        )
        for key in (one, two, stranger, lone)
    ]

    assert [final.cache for final in states] == ["miss", "hit", "miss", "miss"]


async def test_an_apps_answer_is_not_given_by_another_target_of_the_same_release(plane: Plane) -> None:
    settings = GenerationSettings(max_tokens=64, cache=True)
    release = runnable(corpus=None, generation=settings, model="fast")
    plane.runs(("bot", release))
    route(plane, "fast", target_of(plane.model, "one"))
    plane.model.says("Cars must check in at least 30 minutes before departure.")
    first = await ask(made(model="bot", source_format=None), plane.deps)

    route(plane, "fast", target_of(plane.model, "two"))
    second = await ask(made(model="bot", source_format=None), plane.deps)

    assert (first.cache, second.cache) == ("miss", "miss")
    assert second.answered_by == "acme/two"


async def test_a_twin_streams_the_leaders_answer_for_nothing_within_its_own_limits(plane: Plane) -> None:
    key = api_key("ms-twin", limits=Limits(requests_per_minute=60, budgets=(Budget(10**9, "month"),)))
    plane.knows(key)
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
    hold = await plane.deps.limiter.reserve(
        plane.deps.snapshots.current.scopes_of(key, None), NOTHING
    )  # fmt: skip
    assert hold.rate is not None
    assert hold.rate.remaining == 57
    plane.deps.limiter.settle(hold, 0, 0)


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
