"""Prompts that are too long for a target, and where they go."""

from __future__ import annotations

import pytest
from serving_routing_lab import Lab, Scripted, failure, in_virtual_time, route, target

from mainstay.models.errors import ContextTooLong
from mainstay.serving.routing import PromptTooLong


@in_virtual_time
async def test_a_prompt_too_long_goes_to_a_longer_context_never_to_the_same_model() -> None:
    lab, acme, same, short, long = (
        Lab(),
        Scripted("acme"),
        Scripted("same"),
        Scripted("short"),
        Scripted("long"),
    )
    acme.always(failure(ContextTooLong, 400))
    given = route(
        target(acme, "a", context=8000),
        target(same, "a", context=8000),
        target(short, "b", context=4000),
        target(long, "c", context=32000),
    )
    assert await lab.ask(given) == "hello"
    assert (len(acme.calls), same.calls, short.calls, long.calls) == (1, [], [], ["c"])
    assert lab.states()["acme/a"] == "closed"


@in_virtual_time
async def test_a_prompt_too_long_everywhere_goes_to_the_context_fallback() -> None:
    long = Scripted("long")
    lab, acme = Lab({"long": route(target(long, "c", context=None))}), Scripted("acme")
    acme.always(failure(ContextTooLong, 400))
    assert await lab.ask(route(target(acme, "a"), context_fallback="long")) == "hello"
    assert len(acme.calls) == 1


@in_virtual_time
async def test_a_prompt_too_long_without_a_way_out_is_the_clients_to_mend() -> None:
    lab, acme = Lab(), Scripted().always(failure(ContextTooLong, 400))
    with pytest.raises(ContextTooLong) as caught:
        await lab.ask(route(target(acme), target(acme)))
    assert (caught.value.status, len(acme.calls)) == (400, 1)


@in_virtual_time
async def test_a_fallback_nobody_knows_leaves_the_first_cause() -> None:
    lab, acme = Lab(), Scripted().always(failure(ContextTooLong, 400))
    with pytest.raises(ContextTooLong):
        await lab.ask(route(target(acme), context_fallback="gone"))


@in_virtual_time
async def test_a_prompt_that_fits_nowhere_goes_to_the_context_fallback_without_an_attempt() -> None:
    short, middle, long = Scripted("short"), Scripted("middle"), Scripted("long")
    lab = Lab(
        {
            "middle": route(target(middle, context=2000), context_fallback="long"),
            "long": route(target(long, context=9000)),
        }
    )
    given = route(target(short, context=1000), context_fallback="middle")
    assert await lab.ask(given, input_tokens=5000) == "hello"
    assert (short.calls, middle.calls, long.calls) == ([], [], ["m"])
    with pytest.raises(PromptTooLong):
        await lab.ask(given, input_tokens=9001)


@in_virtual_time
async def test_context_fallbacks_in_a_circle_end() -> None:
    given = route(target(Scripted(), context=1000), context_fallback="r")
    with pytest.raises(PromptTooLong):
        await Lab({"r": given}).ask(given, input_tokens=1001)
