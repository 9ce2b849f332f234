"""Random traffic on a limiter, and what must be true of it at every moment and at the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from mainstay.govern.types import LimitScope
from mainstay.serving.errors import (
    BudgetInFlight,
    InsufficientQuota,
    RateLimited,
    RequestExceedsBudget,
    RequestExceedsTokenLimit,
    TokensLimited,
    TooManyAtOnce,
)
from mainstay.serving.limits import Ask, Hold, Limiter, window_at
from support.limits import MINUTE_US

REFUSALS = (
    BudgetInFlight,
    InsufficientQuota,
    RateLimited,
    RequestExceedsBudget,
    RequestExceedsTokenLimit,
    TokensLimited,
    TooManyAtOnce,
)
MONEY_REFUSALS = (BudgetInFlight, InsufficientQuota)
NUSD_PER_TOKEN = 7

Account = tuple[str, str, str]
"""(scope kind, scope id, window id)"""


def accounts_of(scopes: Sequence[LimitScope], at_us: int) -> list[Account]:
    """Every window of every budgeted scope that a hold of this moment counts in, each once."""
    windows = ((s, budget.window) for s in scopes for budget in s.limits.budgets)
    return list(dict.fromkeys((s.kind, s.id, window_at(w, at_us).id) for s, w in windows))


@dataclass(eq=False)
class Asking:
    """A reservation (or growth) on its way: from now on its money may be held."""

    accounts: list[Account]
    nusd: int
    began_us: int
    began_at: int
    unconfirmed: list[tuple[list[Account], int]]


@dataclass
class Books:
    """What the requests themselves know: the truth that a limiter's figures are held against.

    `unconfirmed`: whether the limiter still has a settlement on its way.
    """

    now: Callable[[], int]
    unconfirmed: Callable[[str], bool] = lambda hold_id: False
    asking: set[Asking] = field(default_factory=set)
    given_back: list[tuple[str, list[Account], int]] = field(default_factory=list)
    settled: Counter[Account] = field(default_factory=Counter)
    in_flight: dict[str, tuple[list[Account], int]] = field(default_factory=dict)
    running: Counter[tuple[str, str]] = field(default_factory=Counter)
    admitted_at_us: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    tokens_used: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def ask(self, accounts: list[Account], nusd: int) -> Asking:
        late = [
            (accounts, nusd)
            for hold_id, accounts, nusd in self.given_back[-300:]
            if self.unconfirmed(hold_id)
        ]
        asking = Asking(accounts, nusd, self.now(), len(self.given_back), late)
        self.asking.add(asking)
        return asking

    def admitted(self, hold: Hold, scopes: Sequence[LimitScope]) -> None:
        self.in_flight[hold.id] = (accounts_of(scopes, hold.at_us), hold.nusd)
        for each in scopes:
            self.running[each.kind, each.id] += 1
            self.admitted_at_us.setdefault((each.kind, each.id), []).append(hold.at_us)
            slots = each.limits.concurrent_requests
            assert slots is None or self.running[each.kind, each.id] <= slots, f"{each.id}: too many at once"
        self.check_limits(scopes, hold.at_us)

    def resized(self, hold: Hold) -> None:
        self.in_flight[hold.id] = (self.in_flight[hold.id][0], hold.nusd)

    def ended(self, hold: Hold, scopes: Sequence[LimitScope], cost: int | None, tokens: int | None) -> None:
        """Before the limiter hears of it: nobody can be let in on money not yet given back."""
        accounts, held = self.in_flight.pop(hold.id)
        spent = held if cost is None else cost
        self.given_back.append((hold.id, accounts, held - spent))
        for account in accounts:
            self.settled[account] += spent
        for each in scopes:
            self.running[each.kind, each.id] -= 1
            self.tokens_used[each.kind, each.id] += hold.tokens if tokens is None else tokens

    def held(self, account: Account) -> int:
        return sum(nusd for accounts, nusd in self.in_flight.values() if account in accounts)

    def check_limits(self, scopes: Sequence[LimitScope], at_us: int) -> None:
        """No hard budget is exceeded, money in flight included."""
        for each in scopes:
            for budget in each.limits.budgets:
                account = (each.kind, each.id, window_at(budget.window, at_us).id)
                total = self.settled[account] + self.held(account)
                assert not budget.hard or total <= budget.limit_nusd, (
                    f"{account}: {total} of {budget.limit_nusd}"
                )

    def check_rates(self, scopes: Sequence[LimitScope], began_us: int) -> None:
        """At most the burst and what drained meanwhile, between any two requests; tokens from the first one on."""
        for each in scopes:
            times, limit = (
                sorted(self.admitted_at_us.get((each.kind, each.id), [])),
                each.limits.requests_per_minute,
            )
            for i, first in enumerate(times if limit is not None else []):
                for j in range(i, len(times)):
                    assert (j - i + 1) * MINUTE_US <= (limit or 0) * (MINUTE_US + times[j] - first)
            tokens, elapsed = each.limits.tokens_per_minute, self.now() - began_us
            used = self.tokens_used[each.kind, each.id] * MINUTE_US
            assert tokens is None or used <= tokens * (MINUTE_US + elapsed), f"{each.id}: tokens"

    def refused(self, error: Exception, scopes: Sequence[LimitScope], ask: Ask, asking: Asking) -> None:
        """The false-refusal bound: while it was asked, `limit - settled - in flight` of some hard budget was under
        one request. In flight is also what others ask for, and what the limiter does not yet know to be settled."""
        self.outcomes[type(error).__name__] += 1
        if not isinstance(error, MONEY_REFUSALS):
            return
        limits: dict[Account, int] = {}
        for at_us in (asking.began_us, self.now()):  # midnight may have passed since
            for each in scopes:
                for budget in (budget for budget in each.limits.budgets if budget.hard):
                    limits[each.kind, each.id, window_at(budget.window, at_us).id] = budget.limit_nusd
        rooms = [
            limit - self.settled[account] - self.held(account) - self._on_its_way(account, asking)
            for account, limit in limits.items()
        ]
        assert min(rooms) < (ask.wanted_nusd or 0), f"refused with {rooms} left for {ask}: {error.detail}"

    def _on_its_way(self, account: Account, asking: Asking) -> int:
        asked = sum(each.nusd for each in self.asking if each is not asking and account in each.accounts)
        since = ((accounts, nusd) for _, accounts, nusd in self.given_back[asking.began_at :])
        late = sum(max(0, nusd) for accounts, nusd in (*asking.unconfirmed, *since) if account in accounts)
        return asked + late


@dataclass
class Traffic:
    """One caller's random requests. `pause` lets other requests (or the clock) go on."""

    limiter: Limiter
    books: Books
    random: random.Random
    pause: Callable[[], Awaitable[None]]
    forgetting: list[asyncio.Task[None]] = field(default_factory=list)

    async def request(self, scopes: Sequence[LimitScope]) -> None:
        tokens = self.random.randint(1, 120)
        ask = Ask(tokens, tokens * NUSD_PER_TOKEN, min(tokens, 16) * NUSD_PER_TOKEN)
        asking = self.books.ask(accounts_of(scopes, self.books.now()), ask.wanted_nusd or 0)
        try:
            hold = await self.limiter.reserve(scopes, ask)
        except REFUSALS as error:
            self.books.refused(error, scopes, ask, asking)
            self.books.asking.discard(asking)
            return
        except asyncio.CancelledError:
            self.forgetting.append(asyncio.create_task(self._taken_back(scopes, asking)))
            raise
        self.books.asking.discard(asking)
        self.books.admitted(hold, scopes)
        cost: int | None = 0
        used: int | None = 0
        try:
            hold = await self._perhaps_resized(hold, ask)
            for _ in range(
                self.random.randint(0, 6)
            ):  # a stream: each chunk costs, until the hold is used up
                await self.pause()
                assert cost is not None
                assert used is not None
                cost = min(hold.nusd, cost + NUSD_PER_TOKEN * 9 + 1)
                used = min(hold.tokens, used + 9)
            cost, used = self._outcome(cost, used)
        finally:
            self.books.ended(hold, scopes, cost, used)
            self.limiter.settle(hold, cost, used)
            if self.random.random() < 0.1:
                self.limiter.settle(hold, 10**6, 10**6)  # a second time: nothing happens

    async def _perhaps_resized(self, hold: Hold, ask: Ask) -> Hold:
        if self.random.random() > 0.3:
            return hold
        wanted = self.random.randint(0, 2 * (ask.wanted_nusd or 0))
        least = min(wanted, 50)
        low, high = min(hold.nusd, least), max(hold.nusd, wanted)  # until the answer: something between
        asking = self.books.ask(self.books.in_flight[hold.id][0], high - low)
        self.books.resized(replace(hold, nusd=low))
        try:
            resized = await self.limiter.resize(hold, Ask(self.random.randint(1, 150), wanted, least))
        except REFUSALS as error:
            self.books.outcomes[f"resize {type(error).__name__}"] += 1
            resized = hold
        except asyncio.CancelledError:
            self.books.resized(replace(hold, nusd=high))
            raise
        finally:
            self.books.asking.discard(asking)
        self.books.resized(resized)
        # Who was refused a moment before this was given back may hear of it a moment after.
        self.books.given_back.append((hold.id, asking.accounts, high - resized.nusd))
        return resized

    async def _taken_back(self, scopes: Sequence[LimitScope], asking: Asking) -> None:
        """What a caller left behind is held until the limiter has heard of it."""
        for _ in range(2):  # the batch under way, and the next one
            await self.limiter.states(scopes)
        self.books.asking.discard(asking)

    def _outcome(self, cost: int | None, used: int | None) -> tuple[int | None, int | None]:
        kind = self.random.choice(["whole", "whole", "failed", "unknown", "broken"])
        self.books.outcomes[kind] += 1
        if kind == "failed":
            return 0, 0
        if kind == "unknown":
            return None, None
        if kind == "broken":
            raise BrokenUpstreamError(cost, used)
        return cost, used


class BrokenUpstreamError(Exception):
    """The provider died in the middle; what was streamed is billed."""


async def run(
    traffic: Traffic, scopes: Sequence[Sequence[LimitScope]], requests: int, cancel_share: float
) -> None:
    """Requests of random scopes, many at once, some cancelled at a random moment."""
    tasks: set[asyncio.Task[None]] = set()
    for _ in range(requests):
        tasks.add(asyncio.create_task(traffic.request(traffic.random.choice(scopes))))
        if traffic.random.random() < cancel_share:
            traffic.random.choice(sorted(tasks, key=id)).cancel()
        for _ in range(traffic.random.randint(0, 2)):
            await traffic.pause()
        if len(tasks) > 40:
            done = {task for task in tasks if task.done()}
            await settle_all(traffic, done)
            tasks -= done
    await settle_all(traffic, tasks)
    await asyncio.gather(*traffic.forgetting)


async def settle_all(traffic: Traffic, tasks: set[asyncio.Task[None]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, asyncio.CancelledError):
            traffic.books.outcomes["cancelled"] += 1
        elif isinstance(result, BaseException) and not isinstance(result, BrokenUpstreamError):
            raise result


async def observe(limiter: Limiter, scopes: Sequence[LimitScope]) -> None:
    """What the limiter itself says: no hard budget is exceeded, nothing is negative."""
    for state in await limiter.states(scopes):
        assert state.spent_nusd >= 0
        assert state.held_nusd >= 0
        assert not state.hard or state.spent_nusd + state.held_nusd <= state.limit_nusd, state
