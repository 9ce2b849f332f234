"""What the cache keeps, for whom, and for how long."""

from __future__ import annotations

import pytest
from serving_asking import made, route, streamed, target_of
from serving_plane import Plane, api_key, runnable

from mainstay.delivery.types import GenerationSettings
from mainstay.govern.types import Identity
from mainstay.models import ProviderStreamBroken
from mainstay.models.types import Delta, ToolCallDelta
from mainstay.serving import ask
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
