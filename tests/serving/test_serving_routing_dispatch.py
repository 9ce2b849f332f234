"""Which failures are tried again, where, when, and what the client hears when nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from serving_routing_lab import FOREVER, STOP, Lab, Scripted, now, route, run, target

from mainstay.core.errors import MainstayError
from mainstay.models.errors import (
    ContextTooLong,
    EngineFailed,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
)
from mainstay.models.types import Completion, Delta
from mainstay.serving.errors import (
    ContentBlocked,
    DeadlineExceeded,
    InsufficientQuota,
    UpstreamFailed,
    reply_to,
)
from mainstay.serving.routing import CredentialsExhausted, NoTargetNow, UpstreamTimedOut


def failure(
    kind: type[ProviderError] = ProviderError, status: int | None = None, wait: float | None = None
) -> ProviderError:
    return kind("no", provider="acme", upstream_status=status, retry_after_s=wait)


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
def test_a_passing_failure_of_the_only_target_is_tried_again_after_a_pause(
    error: ProviderError, way: str
) -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().plays(error)
        assert await getattr(lab, way)(route(target(acme))) == "hello"
        assert len(acme.calls) == 2
        assert lab.plan is not None
        assert 0 < (lab.plan.attempts[0].wait_s or 0) <= 0.5
        assert [a.error for a in lab.log.over] == [error, None]

    run(work())


@pytest.mark.parametrize("error", RETRIED, ids=lambda e: f"{type(e).__name__}-{e.upstream_status}")
def test_another_target_is_preferred_at_once_to_a_pause(error: ProviderError) -> None:
    async def work() -> None:
        lab, acme, other = Lab(), Scripted("acme").plays(error), Scripted("other")
        began = now()
        assert await lab.ask(route(target(acme), target(other))) == "hello"
        assert (acme.calls, other.calls, now()) == (["m"], ["m"], began)

    run(work())


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("way", ["ask", "complete"])
def test_a_bad_request_is_told_as_it_is_and_never_tried_again(status: int, way: str) -> None:
    async def work() -> None:
        lab, acme, other = (
            Lab(),
            Scripted("acme").plays(failure(ProviderBadRequest, status)),
            Scripted("other"),
        )
        with pytest.raises(ProviderBadRequest):
            await getattr(lab, way)(route(target(acme), target(other)))
        assert other.calls == []

    run(work())


def test_a_guards_refusal_is_never_routed_around() -> None:
    async def work() -> None:
        lab, acme, other = Lab(), Scripted("acme").plays(ContentBlocked("no")), Scripted("other")
        with pytest.raises(ContentBlocked):
            await lab.ask(route(target(acme), target(other)))
        assert other.calls == []

    run(work())


def test_a_providers_own_refusal_is_an_answer() -> None:
    async def work() -> None:
        lab, acme, other = (
            Lab(),
            Scripted("acme").plays([Delta(finish_reason="content_filter")]),
            Scripted("other"),
        )
        assert await lab.ask(route(target(acme), target(other))) == ""
        assert other.calls == []

    run(work())


def test_a_model_missing_at_one_target_may_be_there_at_the_next() -> None:
    async def work() -> None:
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

    run(work())


@pytest.mark.parametrize(
    "error",
    [
        failure(ProviderAuthFailed, 401),
        failure(ProviderQuotaExhausted, 402),
        failure(ProviderAuthFailed, 403),
    ],
    ids=lambda e: str(e.upstream_status),
)
def test_a_refused_key_is_left_at_once_for_the_next_and_out_for_five_minutes(error: ProviderError) -> None:
    async def work() -> None:
        lab, bad, good = Lab(), Scripted().plays(error), Scripted()
        keys = route(target(bad, credential="key 1"), target(good, credential="key 2"))
        began = now()
        assert await lab.ask(keys) == "hello"
        assert now() == began
        await asyncio.sleep(299)
        await lab.ask(keys)
        assert (len(bad.calls), len(good.calls)) == (1, 2)
        await asyncio.sleep(2)
        await lab.ask(keys)
        assert len(bad.calls) == 2

    run(work())


def test_a_refused_key_is_out_for_all_its_models_and_403_for_one() -> None:
    async def work() -> None:
        lab, acme, other = Lab(), Scripted("acme"), Scripted("other")
        first, second = (route(target(acme, m), target(other)) for m in ("a", "b"))
        acme.plays(failure(ProviderAuthFailed, 403))
        await lab.ask(first)
        await lab.ask(second)
        assert acme.calls == ["a", "b"]
        acme.plays(failure(ProviderAuthFailed, 401))
        await lab.ask(second)
        await asyncio.sleep(1)
        await lab.ask(first)
        await lab.ask(second)
        assert acme.calls == ["a", "b", "b"]

    run(work())


def test_when_every_key_is_refused_the_client_learns_that_it_is_not_its_own() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().always(failure(ProviderAuthFailed, 401))
        given = route(target(acme))
        for _ in range(2):  # refused there, then known to be out
            with pytest.raises(CredentialsExhausted) as caught:
                await lab.ask(given)
            reply = reply_to(caught.value)
            assert (reply.status, reply.body["error"]["code"]) == (502, "upstream_credentials_exhausted")
            assert reply.headers["x-should-retry"] == "false"
        assert len(acme.calls) == 1

    run(work())


def test_new_settings_of_a_provider_bring_its_key_back() -> None:
    async def work() -> None:
        lab = Lab()
        with pytest.raises(CredentialsExhausted):
            await lab.ask(route(target(Scripted("acme").plays(failure(ProviderAuthFailed, 401)))))
        assert await lab.ask(route(target(Scripted("acme")))) == "hello"

    run(work())


def test_retry_after_up_to_five_seconds_is_waited_for() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().plays(failure(ProviderRateLimited, 429, 4.5))
        began = now()
        assert await lab.ask(route(target(acme))) == "hello"
        assert now() - began == pytest.approx(4.5)

    run(work())


@pytest.mark.parametrize(("wait", "deadline"), [(5.5, 100.0), (3.0, 2.0)])
def test_a_longer_wait_or_one_past_the_deadline_fails_over_else_tells_the_wait(
    wait: float, deadline: float
) -> None:
    async def work() -> None:
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

    run(work())


def test_a_rate_limited_target_is_left_alone_until_its_time() -> None:
    async def work() -> None:
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

    run(work())


def test_requests_wait_briefly_for_the_end_of_a_rate_limit_and_do_not_come_back_all_at_once() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().plays(failure(ProviderRateLimited, 429, 3.0))
        given = route(target(acme), attempts_max=1)
        with pytest.raises(ProviderRateLimited):
            await lab.ask(given)
        began = now()
        await asyncio.gather(*(lab.ask(given) for _ in range(5)))
        waits = [at - began for at in acme.called_s[1:]]
        assert len(set(waits)) == 5
        assert 3.0 <= min(waits) <= max(waits) < 3.25

    run(work())


def test_three_attempts_are_the_budget_and_two_at_one_target() -> None:
    async def work() -> None:
        acme, other = Scripted("acme"), Scripted("other")
        for provider in (acme, other):
            provider.always(failure(ProviderError, 500))
        with pytest.raises(UpstreamFailed):
            await Lab().ask(route(target(acme)))
        assert len(acme.calls) == 2
        with pytest.raises(UpstreamFailed):
            await Lab().ask(route(target(acme), target(other)))
        assert (len(acme.calls) - 2) + len(other.calls) == 3

    run(work())


@pytest.mark.parametrize(("client_retry", "calls"), [(0, 3), (1, 2), (2, 1), (9, 1)])
def test_a_clients_own_retries_shrink_the_budget(client_retry: int, calls: int) -> None:
    async def work() -> None:
        acme = Scripted().always(failure(ProviderError, 500))
        targets = [target(acme, f"m{n}") for n in range(5)]
        with pytest.raises(UpstreamFailed):
            await Lab().ask(route(*targets), client_retry=client_retry)
        assert len(acme.calls) == calls

    run(work())


def test_the_first_cause_is_told_with_every_attempt() -> None:
    async def work() -> None:
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

    run(work())


def test_a_silent_target_is_failed_over_and_not_asked_again() -> None:
    async def work() -> None:
        lab, silent, other = Lab(), Scripted("silent").always(FOREVER), Scripted("other")
        began = now()
        assert await lab.ask(route(target(silent), target(other), first_token_timeout_s=2.0)) == "hello"
        assert (now() - began, len(silent.calls), len(silent.hung_up_s)) == (2.0, 1, 1)
        assert isinstance(lab.log.over[0].error, ProviderTimeout)
        with pytest.raises(UpstreamTimedOut) as caught:
            await lab.ask(route(target(silent), first_token_timeout_s=2.0))
        assert (caught.value.status, caught.value.code, len(silent.calls)) == (504, "upstream_failed", 2)

    run(work())


def test_a_first_word_in_time_sets_the_first_token_timer_aside() -> None:
    async def work() -> None:
        slow = Scripted().always(1.5, "a", 30.0, "b", STOP)
        assert await Lab().ask(route(target(slow), first_token_timeout_s=2.0)) == "ab"

    run(work())


@pytest.mark.parametrize("way", ["ask", "complete"])
def test_one_deadline_covers_attempts_and_pauses(way: str) -> None:
    async def work() -> None:
        lab, acme, began = Lab(), Scripted().plays([3.0, failure(ProviderError, 500)]).always(FOREVER), now()
        with pytest.raises(DeadlineExceeded) as caught:
            await getattr(lab, way)(route(target(acme)), 5.0)
        assert now() - began == pytest.approx(5.0)
        assert [a["code"] for a in caught.value.detail["attempts"]] == ["provider_error", "deadline_exceeded"]
        assert acme.deadlines_s[0] == 5.0
        assert acme.deadlines_s[1] < 2.0
        assert lab.in_flight() == 0
        assert lab.states()["acme/m"] == "closed"

    run(work())


def test_no_attempt_begins_after_the_deadline() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted()
        with pytest.raises(DeadlineExceeded):
            await lab.ask(route(target(acme)), 0.0)
        assert (acme.calls, lab.prepared) == ([], [])

    run(work())


def test_a_pause_that_the_deadline_does_not_allow_gives_the_cause_at_once() -> None:
    async def work() -> None:
        lab, acme, began = Lab(), Scripted().always(failure(ProviderError, 503, 4.0)), now()
        with pytest.raises(UpstreamFailed):
            await lab.ask(route(target(acme)), 3.0)
        assert now() == began

    run(work())


@pytest.mark.parametrize("way", ["ask", "complete"])
def test_a_budgets_refusal_ends_the_request_and_says_nothing_of_the_target(way: str) -> None:
    async def work() -> None:
        lab, acme, other = Lab(), Scripted("acme"), Scripted("other")
        lab.refuse = lambda target: InsufficientQuota("spent", retry_after_s=None)
        for _ in range(6):
            with pytest.raises(InsufficientQuota):
                await getattr(lab, way)(route(target(acme), target(other)))
        assert lab.prepared == ["acme/m"] * 6
        assert (acme.calls, lab.log.begun, lab.in_flight()) == ([], [], 0)
        assert lab.states()["acme/m"] == "closed"

    run(work())


def test_money_is_held_anew_for_each_target_before_it_is_called() -> None:
    async def work() -> None:
        lab, acme, other = Lab(), Scripted("acme").plays(failure(ProviderError, 500)), Scripted("other")
        lab.refuse = lambda t: InsufficientQuota("dear", retry_after_s=None) if t.provider is other else None
        with pytest.raises(InsufficientQuota):
            await lab.ask(route(target(acme), target(other)))
        assert (lab.prepared, other.calls) == (["acme/m", "other/m"], [])

    run(work())


def test_a_prompt_too_long_goes_to_a_longer_context_never_to_the_same_model() -> None:
    async def work() -> None:
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

    run(work())


def test_a_prompt_too_long_everywhere_goes_to_the_context_fallback() -> None:
    async def work() -> None:
        long = Scripted("long")
        lab, acme = Lab({"long": route(target(long, "c", context=None))}), Scripted("acme")
        acme.always(failure(ContextTooLong, 400))
        assert await lab.ask(route(target(acme, "a"), context_fallback="long")) == "hello"
        assert len(acme.calls) == 1

    run(work())


def test_a_prompt_too_long_without_a_way_out_is_the_clients_to_mend() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().always(failure(ContextTooLong, 400))
        with pytest.raises(ContextTooLong) as caught:
            await lab.ask(route(target(acme), target(acme)))
        assert (caught.value.status, len(acme.calls)) == (400, 1)

    run(work())


def test_a_fallback_nobody_knows_leaves_the_first_cause() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().always(failure(ContextTooLong, 400))
        with pytest.raises(ContextTooLong):
            await lab.ask(route(target(acme), context_fallback="gone"))

    run(work())


def test_all_out_of_service_is_a_503_with_the_wait_and_what_is_known() -> None:
    async def work() -> None:
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

    run(work())


def test_the_least_bad_of_all_bad_targets_gets_one_probe_early() -> None:
    async def work() -> None:
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

    run(work())


def test_an_answer_without_a_choice_is_no_answer() -> None:
    class Empty(Scripted):
        async def complete(self, call: Any, deadline_s: float) -> Completion:
            self.calls.append(call.model)
            return Completion(())

    async def work() -> None:
        empty, other = Empty("empty"), Scripted("other")
        assert await Lab().complete(route(target(empty), target(other))) == "hello"

    run(work())


@pytest.mark.parametrize("way", ["ask", "complete"])
def test_an_adapters_own_mistake_is_recorded_and_raised_as_it_is(way: str) -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted().plays(KeyError("oops"))
        with pytest.raises(KeyError):
            await getattr(lab, way)(route(target(acme)))
        assert isinstance(lab.log.over[0].error, MainstayError)
        assert lab.in_flight() == 0

    run(work())


def test_a_whole_answer_is_on_the_attempt_that_gave_it() -> None:
    async def work() -> None:
        lab, acme = Lab(), Scripted("acme").plays(failure(ProviderError, 500))
        await lab.complete(route(target(acme), target(Scripted("other"))))
        first, second = lab.log.over
        assert (first.completion, second.error) == (None, None)
        assert second.completion is not None
        assert second.completion.choices[0].text == "hello"

    run(work())
