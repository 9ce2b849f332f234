"""Whom one request asks next: a healthy target at once, else one that is worth a wait, else a longer context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mainstay.core.errors import MainstayError
from mainstay.models.errors import ProviderError, UnknownModel
from mainstay.models.types import Route, Target
from mainstay.serving.routing.alarm import Alarms
from mainstay.serving.routing.errors import PromptTooLong, final_error
from mainstay.serving.routing.outage import none_ready
from mainstay.serving.routing.policies import Candidate, Router
from mainstay.serving.routing.retrying import RETRY_AFTER_S_MAX, backoff_s, what_next
from mainstay.serving.routing.types import Plan

_HERD_S: Final = 0.25
"""Requests that wait for the end of the same rate limit come back spread over this."""

_NONE: Final[frozenset[str]] = frozenset()

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]
ResolveRoute = Callable[[str], Route]


@dataclass(frozen=True, slots=True)
class Parts:
    """What all requests share. `resolve_route` finds a route's `context_fallback`; raises UnknownModel."""

    router: Router
    resolve_route: ResolveRoute
    sleep: Sleep
    clock: Clock | None
    alarms: Alarms


class Fallbacks:
    """The targets left to one request. `route` is the plan's, or the fallback for longer contexts it went over to."""

    __slots__ = (
        "_attempts_max",
        "_candidates",
        "_parts",
        "_plan",
        "_streamed",
        "_too_long",
        "_visited",
        "route",
    )

    def __init__(self, parts: Parts, plan: Plan, streamed: bool) -> None:
        self._parts = parts
        self._plan = plan
        self._streamed = streamed
        self.route = plan.route
        self._attempts_max = max(1, plan.route.attempts_max - plan.client_retry)
        self._candidates: list[Candidate] | None = None
        self._too_long = False
        self._visited: frozenset[str] = _NONE

    def after(self, candidate: Candidate, error: MainstayError, now_s: float) -> None:
        """Take a failure into account. Raises the final error when it forbids another attempt."""
        verdict = what_next(error)
        if verdict == "never":
            raise final_error(self._plan.route.name, self._plan.attempts)
        if verdict == "again":
            candidate.not_before_s = now_s + self._pause_s(error)
        elif verdict == "longer":
            self._too_long = True
            _bar_shorter(self._candidates or [], candidate.target)
        else:
            candidate.barred = True

    def _pause_s(self, error: MainstayError) -> float:
        asked_s = error.retry_after_s if isinstance(error, ProviderError) else None
        return backoff_s(len(self._plan.attempts), self._parts.router.chance) if asked_s is None else asked_s

    def next(self, now_s: float) -> tuple[Candidate, float]:
        """Whom to ask next, and how long to wait before: an untried healthy target at once, if there is one."""
        if self._candidates is None:
            found = self._candidates = self._fitting(now_s)
            if len(found) == 1 and found[0].state.ready(now_s):
                return found[0], 0.0  # nearly every request
        if len(self._plan.attempts) >= self._attempts_max:
            raise final_error(self._plan.route.name, self._plan.attempts)
        chosen = self._choose(self._candidates, now_s)
        if chosen is None and self._too_long and self._fall_back(now_s):
            chosen = self._choose(self._candidates, now_s)
        if chosen is not None:
            return chosen
        if self._plan.attempts:
            raise final_error(self._plan.route.name, self._plan.attempts)
        raise none_ready(self._plan.route.name, [c.state for c in self._candidates], now_s)

    def _choose(self, candidates: list[Candidate], now_s: float) -> tuple[Candidate, float] | None:
        per_target = self.route.attempts_per_target_max
        usable = [c for c in candidates if not c.barred and c.tries < per_target]
        fresh = [c for c in usable if not c.tries and c.state.ready(now_s)]
        if fresh:
            return self._pick(fresh, now_s), 0.0
        waits = [(wait_s, c) for c in usable if (wait_s := self._wait_s(c, now_s)) is not None]
        if waits:
            wait_s, candidate = min(waits, key=lambda item: item[0])
            return candidate, wait_s
        last = [c for c in usable if not c.tries and _may_be_probed_early(c, now_s)]
        return (min(last, key=lambda c: c.state.breaker.probe_at_s or 0.0), 0.0) if last else None

    def _pick(self, ready: list[Candidate], now_s: float) -> Candidate:
        return self._parts.router.choose(self.route, self._plan, ready, streamed=self._streamed, now_s=now_s)

    def _wait_s(self, candidate: Candidate, now_s: float) -> float | None:
        """Until it may be asked; None when that is too long, or nobody knows when."""
        state = candidate.state
        if state.key_out_until_s(now_s) is not None or not state.breaker.allows(now_s):
            return None
        wait_s = max(0.0, candidate.not_before_s - now_s, state.limited_until_s - now_s)
        if wait_s > RETRY_AFTER_S_MAX:
            return None
        if not candidate.tries:
            wait_s += self._parts.router.chance.uniform(0.0, _HERD_S)
        return wait_s if now_s + wait_s < self._plan.ends_at_s else None

    # Contexts

    def _fitting(self, now_s: float) -> list[Candidate]:
        while True:
            try:
                return self._parts.router.candidates(self.route, self._plan, now_s)
            except PromptTooLong as error:
                self._too_long = True
                if not self._enter_fallback():
                    raise error from None

    def _enter_fallback(self) -> bool:
        """Go over to the route for longer contexts; False when there is none, or it was tried already."""
        name = self.route.context_fallback
        self._visited |= {self.route.name}
        if name is None or name in self._visited:
            return False
        try:
            self.route = self._parts.resolve_route(name)
        except UnknownModel:  # the context is what the client must hear of
            self._visited |= {name}
            return False
        return True

    def _fall_back(self, now_s: float) -> bool:
        """After a target's own ContextTooLong: what is longer, and not the same model under another name."""
        refused = [
            a.target for a in self._plan.attempts if a.error is not None and what_next(a.error) == "longer"
        ]
        if not self._enter_fallback():
            return False
        try:
            self._candidates = self._fitting(now_s)
        except MainstayError:  # it fits no better: the first cause stands
            return False
        for target in refused:
            _bar_shorter(self._candidates, target)
        return True


def _bar_shorter(candidates: list[Candidate], refused: Target) -> None:
    """Leave only targets with a longer context than the one that refused, and never its model again."""
    for candidate in candidates:
        context, least = candidate.target.context_tokens, refused.context_tokens
        longer = context is None or least is None or context > least
        if candidate.target.model == refused.model or not longer:
            candidate.barred = True


def _may_be_probed_early(candidate: Candidate, now_s: float) -> bool:
    state = candidate.state
    healthy_but_for_breaker = state.limited_until_s <= now_s and state.key_out_until_s(now_s) is None
    return healthy_but_for_breaker and state.breaker.allows_last_resort(now_s)
