"""Which failures are tried again, where, and what the client hears when nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from serving_routing_lab import STOP, Lab, Scripted, failure, in_virtual_time, now, route, target

from mainstay.core.errors import MainstayError
from mainstay.models.errors import (
    EngineFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
)
from mainstay.models.types import Completion, Delta
from mainstay.serving.errors import ContentBlocked, InsufficientQuota, UpstreamFailed, reply_to
from mainstay.serving.routing import NoTargetNow

RETRIED = [
    failure(ProviderUnreachable),
    failure(ProviderError, 500),
    failure(ProviderError, 503),
    failure(ProviderError, 409),
    failure(ProviderTimeout, 408),
    failure(ProviderTimeout, 504),
    failure(ProviderRateLimited, 429),
    failure(ProviderStreamBroken),
    failure(EngineFailed),
]


@pytest.mark.parametrize("error", RETRIED, ids=lambda e: f"{type(e).__name__}-{e.upstream_status}")
@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_a_passing_failure_of_the_only_target_is_tried_again_after_a_pause(
    error: ProviderError, way: str
) -> None:
    lab, acme = Lab(), Scripted().plays(error)
    assert await getattr(lab, way)(route(target(acme))) == "hello"
    assert len(acme.calls) == 2
    assert lab.plan is not None
    assert 0 < (lab.plan.attempts[0].wait_s or 0) <= 0.5
    assert [a.error for a in lab.log.over] == [error, None]


@pytest.mark.parametrize("error", RETRIED, ids=lambda e: f"{type(e).__name__}-{e.upstream_status}")
@in_virtual_time
async def test_another_target_is_preferred_at_once_to_a_pause(error: ProviderError) -> None:
    lab, acme, other = Lab(), Scripted("acme").plays(error), Scripted("other")
    began = now()
    assert await lab.ask(route(target(acme), target(other))) == "hello"
    assert (acme.calls, other.calls, now()) == (["m"], ["m"], began)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_a_bad_request_is_told_as_it_is_and_never_tried_again(status: int, way: str) -> None:
    lab, acme, other = (
        Lab(),
        Scripted("acme").plays(failure(ProviderBadRequest, status)),
        Scripted("other"),
    )
    with pytest.raises(ProviderBadRequest):
        await getattr(lab, way)(route(target(acme), target(other)))
    assert other.calls == []


@in_virtual_time
async def test_a_guards_refusal_is_never_routed_around() -> None:
    lab, acme, other = Lab(), Scripted("acme").plays(ContentBlocked("no")), Scripted("other")
    with pytest.raises(ContentBlocked):
        await lab.ask(route(target(acme), target(other)))
    assert other.calls == []


@in_virtual_time
async def test_a_providers_own_refusal_is_an_answer() -> None:
    lab, acme, other = (
        Lab(),
        Scripted("acme").plays([Delta(finish_reason="content_filter")]),
        Scripted("other"),
    )
    assert await lab.ask(route(target(acme), target(other))) == ""
    assert other.calls == []


@in_virtual_time
async def test_a_model_missing_at_one_target_may_be_there_at_the_next() -> None:
    lab, acme, other = (
        Lab(),
        Scripted("acme").plays(failure(ProviderModelMissing, 404)),
        Scripted("other"),
    )
    assert await lab.ask(route(target(acme), target(other))) == "hello"
    lone = Scripted("lone").always(failure(ProviderModelMissing, 404))
    with pytest.raises(ProviderModelMissing):
        await lab.ask(route(target(lone)))
    assert len(lone.calls) == 1


@in_virtual_time
async def test_three_attempts_are_the_budget_and_two_at_one_target() -> None:
    acme, other = Scripted("acme"), Scripted("other")
    for provider in (acme, other):
        provider.always(failure(ProviderError, 500))
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(acme)))
    assert len(acme.calls) == 2
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(acme), target(other)))
    assert (len(acme.calls) - 2) + len(other.calls) == 3


@pytest.mark.parametrize(("client_retry", "calls"), [(0, 3), (1, 2), (2, 1), (9, 1)])
@in_virtual_time
async def test_a_clients_own_retries_shrink_the_budget(client_retry: int, calls: int) -> None:
    acme = Scripted().always(failure(ProviderError, 500))
    targets = [target(acme, f"m{n}") for n in range(5)]
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(*targets), client_retry=client_retry)
    assert len(acme.calls) == calls


@in_virtual_time
async def test_the_first_cause_is_told_with_every_attempt() -> None:
    lab, acme, other = Lab(), Scripted("acme"), Scripted("other")
    acme.always(0.25, failure(ProviderUnreachable))
    other.always(failure(ProviderBadRequest, 400))
    with pytest.raises(UpstreamFailed) as caught:
        await lab.ask(route(target(acme), target(other)))
    reply = reply_to(caught.value)
    assert (reply.status, reply.body["error"]["code"]) == (502, "upstream_failed")
    said: dict[str, Any] = reply.body["error"]["mainstay"]
    assert said["cause"] == "provider_unreachable"
    assert said["attempts"] == [
        {
            "target": "acme/m",
            "credential": None,
            "code": "provider_unreachable",
            "status": 502,
            "ms": 250.0,
        },
        {
            "target": "other/m",
            "credential": None,
            "code": "invalid_request_error",
            "status": 400,
            "ms": 0.0,
        },
    ]


@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_a_budgets_refusal_ends_the_request_and_says_nothing_of_the_target(way: str) -> None:
    lab, acme, other = Lab(), Scripted("acme"), Scripted("other")
    lab.refuse = lambda target: InsufficientQuota("spent", retry_after_s=None)
    for _ in range(6):
        with pytest.raises(InsufficientQuota):
            await getattr(lab, way)(route(target(acme), target(other)))
    assert lab.prepared == ["acme/m"] * 6
    assert (acme.calls, lab.log.begun, lab.in_flight()) == ([], [], 0)
    assert lab.states()["acme/m"] == "closed"


@in_virtual_time
async def test_money_is_held_anew_for_each_target_before_it_is_called() -> None:
    lab, acme, other = Lab(), Scripted("acme").plays(failure(ProviderError, 500)), Scripted("other")
    lab.refuse = lambda t: InsufficientQuota("dear", retry_after_s=None) if t.provider is other else None
    with pytest.raises(InsufficientQuota):
        await lab.ask(route(target(acme), target(other)))
    assert (lab.prepared, other.calls) == (["acme/m", "other/m"], [])


@in_virtual_time
async def test_all_out_of_service_is_a_503_with_the_wait_and_what_is_known() -> None:
    lab, acme = Lab(), Scripted().always(failure(ProviderError, 500))
    given = route(target(acme), attempts_max=1)
    for _ in range(5):
        with pytest.raises(UpstreamFailed):
            await lab.ask(given)
    with pytest.raises(NoTargetNow) as caught:
        await lab.ask(given)
    reply = reply_to(caught.value)
    assert (reply.status, reply.body["error"]["code"], reply.headers["retry-after"]) == (
        503,
        "upstream_failed",
        "10",
    )
    assert reply.body["error"]["mainstay"]["targets"] == [
        {"target": "acme/m", "state": "open", "retry_in_s": 10.0}
    ]
    assert len(acme.calls) == 5


@in_virtual_time
async def test_the_least_bad_of_all_bad_targets_gets_one_probe_early() -> None:
    lab, acme = Lab(), Scripted().plays(*[failure(ProviderError, 500)] * 5)
    given = route(target(acme), attempts_max=1)
    for _ in range(5):
        with pytest.raises(UpstreamFailed):
            await lab.ask(given)
    await asyncio.sleep(1.0)
    acme.plays([0.5, "back", STOP])
    answers = await asyncio.gather(*(lab.ask(given) for _ in range(4)), return_exceptions=True)
    assert answers[0] == "back"
    assert all(isinstance(a, NoTargetNow) for a in answers[1:])
    assert lab.states()["acme/m"] == "closed"


@in_virtual_time
async def test_an_answer_without_a_choice_is_no_answer() -> None:
    class Empty(Scripted):
        async def complete(self, call: Any, deadline_s: float) -> Completion:
            self.calls.append(call.model)
            return Completion(())

    empty, other = Empty("empty"), Scripted("other")
    assert await Lab().complete(route(target(empty), target(other))) == "hello"


@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_an_adapters_own_mistake_is_recorded_and_raised_as_it_is(way: str) -> None:
    lab, acme = Lab(), Scripted().plays(KeyError("oops"))
    with pytest.raises(KeyError):
        await getattr(lab, way)(route(target(acme)))
    assert isinstance(lab.log.over[0].error, MainstayError)
    assert lab.in_flight() == 0


@in_virtual_time
async def test_a_whole_answer_is_on_the_attempt_that_gave_it() -> None:
    lab, acme = Lab(), Scripted("acme").plays(failure(ProviderError, 500))
    await lab.complete(route(target(acme), target(Scripted("other"))))
    first, second = lab.log.over
    assert (first.completion, second.error) == (None, None)
    assert second.completion is not None
    assert second.completion.choices[0].text == "hello"
