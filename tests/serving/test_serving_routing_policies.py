"""Who is asked first: what fits, what is healthy, then what the route's policy prefers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from serving_routing_lab import STOP, Lab, Scripted, in_virtual_time, now, route, target

from mainstay.models.capabilities import ALL
from mainstay.models.errors import ProviderError
from mainstay.models.types import Capability, Health, Route
from mainstay.serving.errors import UpstreamFailed, reply_to
from mainstay.serving.routing import Plan, PromptTooLong, Router, Unsupported, likely_cost_nusd
from mainstay.serving.routing.latency import DECAY_S, PeakEwma
from mainstay.serving.routing.policies import LIKELY_OUTPUT_TOKENS


def plan(given: Route, **fields: Any) -> Plan:
    return Plan(given, 100.0, **{"needs": frozenset(), "input_tokens": 10, **fields})


def names(router: Router, given: Route, now_s: float = 0.0, **fields: Any) -> list[str]:
    order = router.order(given, plan(given, **fields), streamed=True, now_s=now_s)
    return [rt.target.provider.name for rt in order]


def firsts(router: Router, given: Route, times: int, **fields: Any) -> Counter[str]:
    return Counter(names(router, given, **fields)[0] for _ in range(times))


def refuse(router: Router, given: Route, place: int, now_s: float = 0.0) -> None:
    """Open the breaker of a target."""
    state = router.breakers.of(given.targets[place].target, now_s)
    for _ in range(5):
        state.failed(state.enter(), ProviderError("no", provider="p"), now_s)


def seeded() -> Router:
    return Router(chance=random.Random(7))


# What fits


@pytest.mark.parametrize("need", sorted(ALL))
def test_a_target_that_would_drop_something_is_never_asked(need: Capability) -> None:
    given = route(target(Scripted("lacks", ALL - {need})), target(Scripted("able")))
    assert names(seeded(), given, needs=frozenset({need})) == ["able"]


def test_a_target_may_support_less_than_its_provider() -> None:
    given = route(target(Scripted("narrow"), supports=frozenset()), target(Scripted("able")))
    assert names(seeded(), given, needs=frozenset({"tools"})) == ["able"]


@in_virtual_time
async def test_a_target_that_would_drop_something_is_no_fallback_either() -> None:
    failing = Scripted("able").always(ProviderError("no", provider="able"))
    lacks = Scripted("lacks", ALL - {"images"})
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(failing), target(lacks)), needs=frozenset({"images"}))
    assert lacks.calls == []


def test_what_nobody_supports_is_a_400_that_names_the_field_and_who_lacks_what() -> None:
    one, two = Scripted("one", ALL - {"json_schema"}), Scripted("two", ALL - {"json_schema", "tools"})
    given = route(target(one), target(two))
    with pytest.raises(Unsupported) as caught:
        names(seeded(), given, needs=frozenset({"json_schema", "tools"}))
    body = reply_to(caught.value).body["error"]
    assert (caught.value.status, body["param"], body["code"]) == (
        400,
        "response_format",
        "unsupported_parameter",
    )
    assert body["mainstay"]["lacking"] == {"one/m": ["json_schema"], "two/m": ["json_schema", "tools"]}


def test_what_only_together_is_lacking_is_said_for_each_target() -> None:
    given = route(target(Scripted("one", ALL - {"seed"})), target(Scripted("two", ALL - {"tools"})))
    with pytest.raises(Unsupported) as caught:
        names(seeded(), given, needs=frozenset({"seed", "tools"}))
    assert caught.value.detail["lacking"] == {"one/m": ["seed"], "two/m": ["tools"]}


def test_a_context_must_hold_the_prompt_and_the_answer() -> None:
    given = route(target(Scripted("short"), context=1000), target(Scripted("long"), context=2000))
    assert names(seeded(), given, input_tokens=900, max_tokens=100) == ["short", "long"]
    assert names(seeded(), given, input_tokens=900, max_tokens=101) == ["long"]


def test_an_unknown_context_is_given_the_benefit_of_the_doubt() -> None:
    given = route(target(Scripted("unknown")))
    assert names(seeded(), given, input_tokens=10**7) == ["unknown"]


def test_a_prompt_that_fits_nowhere_is_a_400() -> None:
    given = route(target(Scripted("a"), context=1000), target(Scripted("b"), context=2000))
    with pytest.raises(PromptTooLong) as caught:
        names(seeded(), given, input_tokens=2001)
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert caught.value.detail["context_tokens"] == 2000


# Policies


def test_ordered_takes_the_first_that_is_healthy() -> None:
    router, given = seeded(), route(*(target(Scripted(n)) for n in "abc"))
    assert names(router, given) == ["a", "b", "c"]
    refuse(router, given, 0)
    assert names(router, given) == ["b", "c", "a"]


def test_weighted_keeps_to_the_weights() -> None:
    given = route(
        (target(Scripted("a")), 6.0),
        (target(Scripted("b")), 3.0),
        (target(Scripted("c")), 1.0),
        policy="weighted",
    )
    seen = firsts(seeded(), given, 10_000)
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert seen[name] / 10_000 == pytest.approx(share, abs=0.02)  # four standard deviations


def test_weights_hold_among_those_left() -> None:
    router = seeded()
    given = route(
        (target(Scripted("a")), 6.0),
        (target(Scripted("b")), 3.0),
        (target(Scripted("c")), 1.0),
        policy="weighted",
    )
    refuse(router, given, 0)
    seen = firsts(router, given, 10_000)
    assert seen["a"] == 0
    assert seen["b"] / 10_000 == pytest.approx(0.75, abs=0.02)


def test_weight_zero_is_for_fallback_alone() -> None:
    router = seeded()
    given = route((target(Scripted("spare")), 0.0), (target(Scripted("a")), 1.0), policy="weighted")
    assert firsts(router, given, 200) == {"a": 200}
    refuse(router, given, 1)
    assert firsts(router, given, 200) == {"spare": 200}


def test_cheapest_goes_by_what_this_request_is_likely_to_cost() -> None:
    given = route(
        target(Scripted("unknown")),
        target(Scripted("dear"), usd=5.0),
        target(Scripted("cheap"), usd=1.0),
        policy="cheapest",
    )
    assert names(seeded(), given) == ["cheap", "dear", "unknown"]


def test_cheapest_that_fits_is_not_cheapest_at_all() -> None:
    given = route(
        target(Scripted("cheap"), usd=1.0, context=100), target(Scripted("dear"), usd=5.0), policy="cheapest"
    )
    assert names(seeded(), given, input_tokens=200) == ["dear"]


def test_the_likely_cost_counts_input_and_a_likely_answer() -> None:
    priced, given = target(Scripted(), usd=2.0), route(target(Scripted()))
    assert likely_cost_nusd(priced, plan(given, input_tokens=1000)) == (1000 + LIKELY_OUTPUT_TOKENS) * 2000
    assert likely_cost_nusd(priced, plan(given, input_tokens=1000, max_tokens=10)) == 1010 * 2000
    assert likely_cost_nusd(target(Scripted()), plan(given)) is None


# Sticky


@pytest.mark.parametrize("policy", ["weighted", "latency"])
def test_a_conversation_stays_with_its_target(policy: Any) -> None:
    given = route(*(target(Scripted(n)) for n in "abcd"), policy=policy, sticky=True)
    router = seeded()
    for number in range(20):
        assert len(firsts(router, given, 20, sticky_key=f"c{number}")) == 1


def test_conversations_spread_by_weight() -> None:
    given = route((target(Scripted("a")), 3.0), (target(Scripted("b")), 1.0), policy="weighted", sticky=True)
    router = seeded()
    seen = Counter(names(router, given, sticky_key=f"c{n}")[0] for n in range(4000))
    assert seen["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_when_a_target_leaves_only_its_conversations_move_and_they_come_back() -> None:
    given = route(*(target(Scripted(n)) for n in "abcd"), policy="weighted", sticky=True)
    router, keys = seeded(), [f"c{n}" for n in range(400)]
    before = {key: names(router, given, sticky_key=key)[0] for key in keys}
    refuse(router, given, 0)
    during = {key: names(router, given, sticky_key=key)[0] for key in keys}
    moved = {key for key in keys if before[key] != during[key]}
    assert moved == {key for key in keys if before[key] == "a"}
    assert len({during[key] for key in moved}) == 3
    after = {key: names(router, given, now_s=11.0, sticky_key=key)[0] for key in keys}
    assert after == before


def test_a_conversation_stays_with_one_of_several_keys_of_equal_price() -> None:
    provider = Scripted("p")
    given = route(
        *(target(provider, usd=1.0, credential=f"key {n}") for n in range(4)), policy="cheapest", sticky=True
    )
    router = seeded()
    chosen = {
        key: router.order(given, plan(given, sticky_key=key), streamed=True, now_s=0.0)[0].target.credential
        for key in (f"c{n}" for n in range(100))
    }
    assert len(set(chosen.values())) == 4


def test_a_route_that_is_not_sticky_ignores_the_conversation() -> None:
    given = route(*(target(Scripted(n)) for n in "ab"), policy="weighted")
    assert len(firsts(seeded(), given, 50, sticky_key="c")) == 2


# Latency


def test_the_average_jumps_to_a_peak_and_sinks_slowly() -> None:
    average = PeakEwma()
    assert average.value_s(0.0) is None
    average.observe(0.1, 0.0)
    average.observe(2.0, 1.0)
    assert average.value_s(1.0) == 2.0
    average.observe(0.1, 2.0)
    assert 1.5 < (average.value_s(2.0) or 0) < 2.0


def test_the_average_fades_without_news() -> None:
    average = PeakEwma()
    average.observe(1.0, 0.0)
    assert average.value_s(DECAY_S) == pytest.approx(0.3679, abs=1e-3)


def test_latency_prefers_the_faster_and_the_less_busy() -> None:
    router = seeded()
    given = route(target(Scripted("fast")), target(Scripted("slow")), policy="latency")
    fast, slow = (router.breakers.of(rt.target, 0.0) for rt in given.targets)
    fast.latency_of(streamed=True).observe(0.2, 0.0)
    slow.latency_of(streamed=True).observe(0.5, 0.0)
    assert firsts(router, given, 100) == {"fast": 100}
    fast.in_flight = 2
    assert firsts(router, given, 100) == {"slow": 100}


def test_a_new_target_is_measured_by_one_request_before_it_gets_more() -> None:
    router = seeded()
    given = route(target(Scripted("known")), target(Scripted("new")), policy="latency")
    known, new = (router.breakers.of(rt.target, 0.0) for rt in given.targets)
    known.latency_of(streamed=True).observe(0.2, 0.0)
    assert firsts(router, given, 50) == {"new": 50}
    new.enter()
    assert firsts(router, given, 50) == {"known": 50}


def test_a_servers_own_count_of_waiting_requests_counts_while_fresh() -> None:
    router = seeded()
    given = route(target(Scripted("idle")), target(Scripted("full")), policy="latency")
    idle, full = (router.breakers.of(rt.target, 0.0) for rt in given.targets)
    idle.latency_of(streamed=True).observe(0.4, 0.0)
    full.latency_of(streamed=True).observe(0.2, 0.0)
    full.health, full.health_at_s = Health(True, running=8, waiting=5), 0.0
    assert firsts(router, given, 50) == {"idle": 50}
    full.health_at_s = -60.0
    assert firsts(router, given, 50) == {"full": 50}


def test_streams_and_whole_answers_are_not_measured_by_the_same_clock() -> None:
    router = seeded()
    given = route(target(Scripted("a")), target(Scripted("b")), policy="latency")
    a, b = (router.breakers.of(rt.target, 0.0) for rt in given.targets)
    a.latency_of(streamed=True).observe(0.1, 0.0)
    b.latency_of(streamed=True).observe(0.2, 0.0)
    a.latency_of(streamed=False).observe(9.0, 0.0)
    b.latency_of(streamed=False).observe(3.0, 0.0)
    asked = plan(given)
    for streamed, name in ((True, "a"), (False, "b")):
        first = router.order(given, asked, streamed=streamed, now_s=0.0)[0]
        assert first.target.provider.name == name


@in_virtual_time
async def test_a_slow_target_gets_a_small_share_and_its_part_again_when_it_recovers() -> None:
    """Three servers, 20 requests/s for two minutes each way; one takes ten times as long, then does not."""

    lab = Lab(seed=11)
    servers = [Scripted(name).always(0.2, "hi", 0.3, STOP) for name in "abc"]
    given = route(*(target(server) for server in servers), policy="latency")
    slow = servers[2]

    async def load(seconds: int) -> Counter[str]:
        before = {server.name: len(server.calls) for server in servers}
        async with asyncio.TaskGroup() as group:
            for _ in range(seconds * 20):
                group.create_task(lab.ask(given))
                await asyncio.sleep(0.05)
        return Counter({server.name: len(server.calls) - before[server.name] for server in servers})

    even = await load(30)
    slow.always(2.0, "hi", 0.3, STOP)
    await load(10)
    uneven = await load(120)
    slow.always(0.2, "hi", 0.3, STOP)
    await load(30)
    again = await load(60)
    assert min(even.values()) / even.total() > 0.2
    assert 0 < uneven["c"] / uneven.total() < 0.1
    assert again["c"] / again.total() > 0.2
    assert lab.in_flight() == 0


@in_virtual_time
async def test_a_slow_target_is_tried_again_though_nobody_else_is_slower() -> None:
    lab = Lab(seed=5)
    fast, slow = Scripted("fast").always(0.2, "hi", STOP), Scripted("slow").always(8.0, "hi", STOP)
    given = route(target(fast), target(slow), policy="latency")
    for _ in range(2):
        await lab.ask(given)
    assert len(slow.calls) == 1
    slow.always(0.2, "hi", STOP)
    began = now()
    while len(slow.calls) == 1:
        await lab.ask(given)
        await asyncio.sleep(0.3)
    assert now() - began < 60
