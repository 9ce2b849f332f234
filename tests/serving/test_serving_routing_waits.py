"""Time: a provider's wait is waited for, passed on or gone round; one deadline covers everything."""

from __future__ import annotations

import asyncio

import pytest
from serving_routing_lab import FOREVER, STOP, Lab, Scripted, failure, in_virtual_time, now, route, target

from mainstay.models.errors import ProviderError, ProviderRateLimited, ProviderTimeout
from mainstay.serving.errors import DeadlineExceeded, UpstreamFailed
from mainstay.serving.routing import UpstreamTimedOut


@in_virtual_time
async def test_retry_after_up_to_five_seconds_is_waited_for() -> None:
    lab, acme = Lab(), Scripted().plays(failure(ProviderRateLimited, 429, 4.5))
    began = now()
    assert await lab.ask(route(target(acme))) == "hello"
    assert now() - began == pytest.approx(4.5)


@pytest.mark.parametrize(("wait", "deadline"), [(5.5, 100.0), (3.0, 2.0)])
@in_virtual_time
async def test_a_longer_wait_or_one_past_the_deadline_fails_over_else_tells_the_wait(
    wait: float, deadline: float
) -> None:
    lab, acme, other = (
        Lab(),
        Scripted("acme").plays(failure(ProviderRateLimited, 429, wait)),
        Scripted("other"),
    )
    assert await lab.ask(route(target(acme), target(other)), deadline) == "hello"
    lone, began = Scripted("lone").always(failure(ProviderRateLimited, 429, wait)), now()
    with pytest.raises(ProviderRateLimited) as caught:
        await lab.ask(route(target(lone)), deadline)
    assert (now(), caught.value.retry_after_s, len(lone.calls)) == (began, wait, 1)


@in_virtual_time
async def test_a_rate_limited_target_is_left_alone_until_its_time() -> None:
    lab, acme, other = (
        Lab(),
        Scripted("acme").plays(failure(ProviderRateLimited, 429, 60.0)),
        Scripted("other"),
    )
    given = route(target(acme), target(other))
    for _ in range(3):
        await lab.ask(given)
    assert (len(acme.calls), lab.states()["acme/m"]) == (1, "limited")
    await asyncio.sleep(60)
    await lab.ask(given)
    assert len(acme.calls) == 2


@in_virtual_time
async def test_requests_wait_briefly_for_the_end_of_a_rate_limit_and_do_not_come_back_all_at_once() -> None:
    lab, acme = Lab(), Scripted().plays(failure(ProviderRateLimited, 429, 3.0))
    given = route(target(acme), attempts_max=1)
    with pytest.raises(ProviderRateLimited):
        await lab.ask(given)
    began = now()
    await asyncio.gather(*(lab.ask(given) for _ in range(5)))
    waits = [at - began for at in acme.called_s[1:]]
    assert len(set(waits)) == 5
    assert 3.0 <= min(waits) <= max(waits) < 3.25


@in_virtual_time
async def test_a_silent_target_is_failed_over_and_not_asked_again() -> None:
    lab, silent, other = Lab(), Scripted("silent").always(FOREVER), Scripted("other")
    began = now()
    assert await lab.ask(route(target(silent), target(other), first_token_timeout_s=2.0)) == "hello"
    assert (now() - began, len(silent.calls), len(silent.hung_up_s)) == (2.0, 1, 1)
    assert isinstance(lab.log.over[0].error, ProviderTimeout)
    with pytest.raises(UpstreamTimedOut) as caught:
        await lab.ask(route(target(silent), first_token_timeout_s=2.0))
    assert (caught.value.status, caught.value.code, len(silent.calls)) == (504, "upstream_failed", 2)


@in_virtual_time
async def test_a_first_word_in_time_sets_the_first_token_timer_aside() -> None:
    slow = Scripted().always(1.5, "a", 30.0, "b", STOP)
    assert await Lab().ask(route(target(slow), first_token_timeout_s=2.0)) == "ab"


@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_one_deadline_covers_attempts_and_pauses(way: str) -> None:
    lab, acme, began = Lab(), Scripted().plays([3.0, failure(ProviderError, 500)]).always(FOREVER), now()
    with pytest.raises(DeadlineExceeded) as caught:
        await getattr(lab, way)(route(target(acme)), 5.0)
    assert now() - began == pytest.approx(5.0)
    assert [a["code"] for a in caught.value.detail["attempts"]] == ["provider_error", "deadline_exceeded"]
    assert acme.deadlines_s[0] == 5.0
    assert acme.deadlines_s[1] < 2.0
    assert lab.in_flight() == 0
    assert lab.states()["acme/m"] == "closed"


@in_virtual_time
async def test_no_attempt_begins_after_the_deadline() -> None:
    lab, acme = Lab(), Scripted()
    with pytest.raises(DeadlineExceeded):
        await lab.ask(route(target(acme)), 0.0)
    assert (acme.calls, lab.prepared) == ([], [])


@in_virtual_time
async def test_a_pause_that_the_deadline_does_not_allow_gives_the_cause_at_once() -> None:
    lab, acme, began = Lab(), Scripted().always(failure(ProviderError, 503, 4.0)), now()
    with pytest.raises(UpstreamFailed):
        await lab.ask(route(target(acme)), 3.0)
    assert now() == began
