"""Chooses among a route's targets: what fits the request, who may be called, then the route's policy."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mainstay.models.prices import expected_nusd
from mainstay.models.types import Capability, Route, RoutePolicy, RouteTarget, Target
from mainstay.serving.routing.breakers import Breakers, TargetState
from mainstay.serving.routing.errors import PromptTooLong, Unsupported
from mainstay.serving.routing.types import Plan

LIKELY_OUTPUT_TOKENS: Final = 256
"""Output assumed when targets are compared by price, unless the request allows less."""
_UNMEASURED_S: Final = 1e6
"""A busy target of unknown latency comes after every known one: a new one gets one request to be measured by."""


class Candidate:
    """A target that fits one request, and what that request has seen of it.

    `barred`: not to be called again by this request. `not_before_s`: its failure's pause, on the loop's clock.
    """

    __slots__ = ("barred", "not_before_s", "route_target", "state", "target", "tries")

    def __init__(self, route_target: RouteTarget, state: TargetState) -> None:
        self.route_target = route_target
        self.target = route_target.target
        self.state = state
        self.tries = 0
        self.barred = False
        self.not_before_s = 0.0


@dataclass(frozen=True, slots=True)
class Choosing:
    """What a policy may look at besides the candidates. Latencies of streams and of whole answers differ."""

    route: Route
    plan: Plan
    streamed: bool
    now_s: float
    chance: random.Random


class Router:
    """Filters first, so that nothing a request needs is dropped; then the policy picks one of the healthy.

    `breakers` is shared by all requests of a process. `chance` makes the choices of `weighted` and `latency`.
    """

    def __init__(self, breakers: Breakers | None = None, chance: random.Random | None = None) -> None:
        self.breakers = Breakers() if breakers is None else breakers
        self.chance = random.Random() if chance is None else chance  # noqa: S311 - spreads load

    def candidates(self, route: Route, plan: Plan, now_s: float) -> list[Candidate]:
        """Every target whose abilities and context suffice, healthy or not, as the route lists them.

        Raises Unsupported, or PromptTooLong when only the context is short.
        """
        fitting, longest = [], None
        for rt in route.targets:  # one pass: this is every request's path
            target = rt.target
            if target.can(plan.needs):
                if target.context_tokens is None or plan.tokens <= target.context_tokens:
                    fitting.append(Candidate(rt, self.breakers.of(target, now_s)))
                else:
                    longest = max(target.context_tokens or 0, longest or 0)
        if fitting:
            return fitting
        if longest is None:
            raise Unsupported(route.name, _lacking(route, plan.needs))
        raise PromptTooLong(route.name, plan.input_tokens, plan.max_tokens, longest)

    def choose(
        self, route: Route, plan: Plan, ready: Sequence[Candidate], *, streamed: bool, now_s: float
    ) -> Candidate:
        """One of `ready`, which is not empty and holds only targets that may be called."""
        if len(ready) == 1:
            return ready[0]
        return _POLICIES[route.policy](ready, Choosing(route, plan, streamed, now_s, self.chance))

    def order(self, route: Route, plan: Plan, *, streamed: bool, now_s: float) -> list[RouteTarget]:
        """Whom a request would be sent to now, then its fallbacks; calls nobody. Those out of service come last.

        Raises as `candidates` does. `weighted` and `latency` throw dice: the next request may differ.
        """
        left = self.candidates(route, plan, now_s)
        ready = [c for c in left if c.state.ready(now_s)]
        rest = [c for c in left if not c.state.ready(now_s)]
        ordered: list[RouteTarget] = []
        for group in (ready, rest):
            while group:
                chosen = self.choose(route, plan, group, streamed=streamed, now_s=now_s)
                group.remove(chosen)
                ordered.append(chosen.route_target)
        return ordered


def likely_cost_nusd(target: Target, plan: Plan) -> int | None:
    """At list price without cached input, for an answer of likely length. None: the price is unknown."""
    if target.price is None:
        return None
    output = LIKELY_OUTPUT_TOKENS if plan.max_tokens is None else min(plan.max_tokens, LIKELY_OUTPUT_TOKENS)
    return expected_nusd(plan.input_tokens, output, target.price)


def _lacking(route: Route, needs: frozenset[Capability]) -> dict[str, frozenset[Capability]]:
    return {
        f"{rt.target.provider.name}/{rt.target.model}": needs - rt.target.capabilities for rt in route.targets
    }


def _ordered(ready: Sequence[Candidate], given: Choosing) -> Candidate:
    return ready[0]


def _weighted(ready: Sequence[Candidate], given: Choosing) -> Candidate:
    """Those of weight 0 only when no other is left, then in the route's order."""
    weighed = [c for c in ready if c.route_target.weight > 0]
    if not weighed:
        return ready[0]
    if (key := _sticky_key(given)) is not None:
        return _rendezvous(weighed, key, lambda c: c.route_target.weight)
    point = given.chance.random() * sum(c.route_target.weight for c in weighed)
    for candidate in weighed:
        point -= candidate.route_target.weight
        if point < 0:
            return candidate
    return weighed[-1]


def _latency(ready: Sequence[Candidate], given: Choosing) -> Candidate:
    """Power of two choices (Mitzenmacher 2001): of two at random, the one with less latency x outstanding."""
    if (key := _sticky_key(given)) is not None:
        return _rendezvous(ready, key, lambda c: 1.0)
    first = given.chance.randrange(len(ready))
    second = given.chance.randrange(len(ready) - 1)
    second += second >= first
    one, other = ready[first], ready[second]
    return one if _load(one, given) <= _load(other, given) else other


def _load(candidate: Candidate, given: Choosing) -> float:
    outstanding = candidate.state.outstanding(given.now_s)
    latency_s = candidate.state.latency_of(given.streamed).value_s(given.now_s)
    if latency_s is None:
        return _UNMEASURED_S + outstanding if outstanding else 0.0
    return latency_s * (outstanding + 1)


def _cheapest(ready: Sequence[Candidate], given: Choosing) -> Candidate:
    """An unknown price comes last; among equal ones (several keys of one model) the conversation decides."""
    costs = [likely_cost_nusd(c.target, given.plan) for c in ready]
    known = [cost for cost in costs if cost is not None]
    least = min(known, default=None)
    equal = [candidate for candidate, cost in zip(ready, costs, strict=True) if cost == least]
    if len(equal) > 1 and (key := _sticky_key(given)) is not None:
        return _rendezvous(equal, key, lambda c: 1.0)
    return equal[0]


_POLICIES: Final[Mapping[RoutePolicy, Callable[[Sequence[Candidate], Choosing], Candidate]]] = {
    "ordered": _ordered,
    "weighted": _weighted,
    "latency": _latency,
    "cheapest": _cheapest,
}


def _sticky_key(given: Choosing) -> str | None:
    return given.plan.sticky_key if given.route.sticky else None


def _rendezvous(ready: Sequence[Candidate], key: str, weight: Callable[[Candidate], float]) -> Candidate:
    """The highest random weight for this key (Thaler and Ravishankar 1998; weights after Schindelhauer 2005).

    When a target leaves, only its own conversations move; when it comes back, they return.
    """
    return min(ready, key=lambda candidate: -math.log(_hash(candidate.target, key)) / weight(candidate))


def _hash(target: Target, key: str) -> float:
    """Uniform in (0, 1)."""
    text = f"{target.provider.name}\0{target.model}\0{target.credential}\0{key}"
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
