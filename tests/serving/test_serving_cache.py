"""What the cache keeps, for whom, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from serving_asking import CALLER, asked, made, route, streamed, target_of
from serving_door import ASK, client
from serving_plane import CHECK_IN, Plane, api_key, runnable

from mainstay.delivery.types import GenerationSettings
from mainstay.govern.types import Identity
from mainstay.models import ProviderStreamBroken
from mainstay.models.types import Choice, Delta, ToolCallDelta, Usage
from mainstay.observe.types import Attr
from mainstay.serving import Final, ask
from mainstay.serving.cache import ExactCache
from mainstay.serving.errors import UpstreamFailed


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

    after = await ask(made(cache="use"), plane.deps)
    assert (after.text, after.cache) == ("whole", "miss")


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


async def test_a_release_that_caches_answers_each_caller_once(plane: Plane) -> None:
    plane.runs(("bot", runnable(generation=GenerationSettings(cache=True))))
    plane.model.says(CHECK_IN)
    states = [
        (await asked(plane)).cache,
        (await asked(plane)).cache,
        (await asked(plane, identity=replace(CALLER, id="user_2"))).cache,
        (await asked(plane, cache="skip")).cache,
    ]
    assert states == ["miss", "hit", "miss", "bypass"]
    assert plane.sink.traces[1][0].attributes[Attr.CACHE] == "hit"


async def test_a_cached_answer_is_free_and_replayed_as_a_stream(serve: Any, plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    async with client(serve, plane) as sdk:
        use = {"x-mainstay-cache": "use"}
        first = await sdk.chat.completions.with_raw_response.create(
            model="bot", messages=ASK, extra_headers=use
        )
        stream = await sdk.chat.completions.create(model="bot", messages=ASK, stream=True, extra_headers=use)
        chunks = [c async for c in stream]
        third = await sdk.chat.completions.with_raw_response.create(model="bot", messages=ASK)
    assert first.headers["x-mainstay-cache"] == "miss"
    assert third.headers["x-mainstay-cache"] == "bypass"
    assert chunks[0].choices[0].delta.content == f"{CHECK_IN} [1]"
    extension = chunks[-1].mainstay  # type: ignore[attr-defined]
    assert (extension["cache"], extension["cost_nusd"]) == ("hit", 0)
    assert extension["citations"][0]["quote"] == CHECK_IN
    assert len(plane.model.calls) == 2


def final(text: str) -> Final:
    return Final((Choice(text),), Usage(1, 1), 5, 1.0, "t", "m", "miss")


def test_a_cached_answer_expires() -> None:
    now = [0]
    cache = ExactCache(clock=lambda: now[0])
    cache.put("k", final("x"), ttl_s=10)
    assert cache.get("k") is not None
    now[0] = 10_000_000
    assert cache.get("k") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_the_cache_forgets_the_longest_unused_above_its_size() -> None:
    cache = ExactCache(limit_bytes=10_000)
    for name in "abc":
        cache.put(name, final("x" * 1000))
    cache.get("a")
    cache.put("d", final("x" * 1000))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.size_bytes <= 10_000
    cache.put("huge", final("x" * 20_000))
    assert cache.get("huge") is None
