"""When a target is left alone, when it gets another chance, and what is forgotten."""

from __future__ import annotations

import random

import pytest
from serving_routing_lab import Scripted, target

from mainstay.models.errors import (
    ContextTooLong,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderRateLimited,
)
from mainstay.serving.routing import breakers
from mainstay.serving.routing.breakers import Breaker, Breakers, TargetState


def fail(breaker: Breaker, times: int, now_s: float, spacing_s: float = 0.0) -> None:
    for number in range(times):
        breaker.failed(breaker.enter(), now_s + number * spacing_s)


def state(breakers: Breakers, now_s: float = 0.0, name: str = "acme") -> TargetState:
    return breakers.of(target(Scripted(name)), now_s)


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    breaker = Breaker()
    fail(breaker, 4, 0.0)
    assert breaker.allows(0.0)
    breaker.succeeded(breaker.enter(), 0.0)
    fail(breaker, 4, 0.0)
    assert breaker.allows(0.0)
    fail(breaker, 1, 0.0)
    assert (breaker.allows(0.0), breaker.state(0.0)) == (False, "open")


def test_half_of_twenty_calls_in_thirty_seconds_open_it() -> None:
    breaker = Breaker()
    for number in range(19):
        (breaker.succeeded if number % 2 else breaker.failed)(breaker.enter(), number * 1.0)
    assert breaker.allows(19.0)
    breaker.failed(breaker.enter(), 19.0)
    assert not breaker.allows(19.0)


def test_failures_of_more_than_thirty_seconds_ago_do_not_count() -> None:
    breaker = Breaker()
    for number in range(200):  # every other one fails, but never twenty in thirty seconds
        (breaker.succeeded if number % 2 else breaker.failed)(breaker.enter(), number * 2.0)
    assert breaker.allows(400.0)


def test_less_than_half_failing_never_opens_it() -> None:
    breaker, chance = Breaker(), random.Random(3)
    for number in range(20_000):
        (breaker.failed if chance.random() < 0.1 else breaker.succeeded)(breaker.enter(), number * 0.01)
    assert breaker.state(200.0) == "closed"


def test_half_open_lets_a_single_probe_through() -> None:
    breaker = Breaker()
    fail(breaker, 5, 0.0)
    assert not breaker.allows(breakers.OPEN_S - 0.1)
    assert breaker.allows(breakers.OPEN_S)
    assert breaker.enter() is True
    assert (breaker.allows(11.0), breaker.state(11.0)) == (False, "half_open")


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = Breaker()
    fail(breaker, 5, 0.0)
    breaker.succeeded(breaker.enter(), 10.0)
    assert breaker.state(10.0) == "closed"
    fail(breaker, 4, 10.0)
    assert breaker.allows(10.0)


def test_each_probe_that_fails_doubles_the_wait_up_to_a_minute() -> None:
    breaker, now_s, waits = Breaker(), 0.0, []
    fail(breaker, 5, now_s)
    for _ in range(5):
        assert breaker.probe_at_s is not None
        waits.append(breaker.probe_at_s - now_s)
        now_s = breaker.probe_at_s
        breaker.failed(breaker.enter(), now_s)
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_probe_that_was_cut_off_makes_room_for_another() -> None:
    breaker = Breaker()
    fail(breaker, 5, 0.0)
    breaker.released(breaker.enter())
    assert breaker.allows(10.0)


def test_late_answers_of_calls_before_it_opened_change_nothing() -> None:
    breaker = Breaker()
    early = [breaker.enter() for _ in range(3)]
    fail(breaker, 5, 0.0)
    breaker.succeeded(early[0], 1.0)
    breaker.failed(early[1], 2.0)
    breaker.released(early[2])
    assert (breaker.state(2.0), breaker.probe_at_s) == ("open", 10.0)


@pytest.mark.parametrize("kind", [ProviderBadRequest, ContextTooLong, ProviderModelMissing])
def test_the_clients_mistakes_do_not_open_it(kind: type[ProviderError]) -> None:
    acme = state(Breakers())
    for _ in range(50):
        acme.failed(acme.enter(), kind("no", provider="acme", upstream_status=400), 0.0)
    assert acme.ready(0.0)


def test_a_storm_of_429_without_a_wait_opens_it() -> None:
    acme = state(Breakers())
    for _ in range(5):
        acme.failed(acme.enter(), ProviderRateLimited("no", provider="acme"), 0.0)
    assert not acme.ready(0.0)


def test_a_rate_limit_takes_the_target_out_until_then_and_no_longer() -> None:
    acme = state(Breakers())
    acme.failed(acme.enter(), ProviderRateLimited("no", provider="acme", retry_after_s=7.0), 1.0)
    acme.failed(acme.enter(), ProviderRateLimited("no", provider="acme", retry_after_s=2.0), 1.0)
    assert (acme.ready(7.9), acme.ready(8.0)) == (False, True)


def test_each_model_and_key_has_a_breaker_of_its_own() -> None:
    provider, known = Scripted(), Breakers()
    one = known.of(target(provider, "a", credential="key 1"), 0.0)
    fail(one.breaker, 5, 0.0)
    assert not known.of(target(provider, "a", credential="key 1"), 0.0).ready(0.0)
    assert known.of(target(provider, "a", credential="key 2"), 0.0).ready(0.0)
    assert known.of(target(provider, "b", credential="key 1"), 0.0).ready(0.0)


def test_a_target_unseen_for_an_hour_is_forgotten() -> None:
    known = Breakers()
    state(known, 0.0, "old")
    state(known, 3000.0, "new")
    assert [v.provider for v in known.states(3601.0)] == ["new"]


def test_a_target_with_a_call_in_flight_is_not_forgotten() -> None:
    known = Breakers()
    state(known).enter()
    assert len(known.states(10_000.0)) == 1


def test_names_made_up_by_clients_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "STATES_MAX", 100)
    provider, known = Scripted(), Breakers()
    for number in range(1000):
        known.of(target(provider, f"m{number}"), number * 0.001)
    models = [view.model for view in known.states(1.0)]
    assert len(models) <= 100
    assert models[-1] == "m999"


def test_the_snapshot_says_what_metrics_need() -> None:
    known = Breakers()
    acme = state(known)
    acme.latency_of(streamed=True).observe(0.5, 0.0)
    acme.enter()
    fail(acme.breaker, 5, 0.0)
    (view,) = known.states(0.0)
    assert (view.public_name, view.provider, view.model, view.credential) == ("acme/m", "acme", "m", None)
    assert (view.availability, view.in_flight, view.failures_in_a_row) == ("open", 1, 5)
    assert (view.retry_in_s, view.first_token_s, view.whole_s, view.waiting) == (10.0, 0.5, None, None)
