"""Nouns of limits: what a request asks for, what it was granted, and where every limit stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mainstay.core.values import value
from mainstay.govern.types import BudgetWindow, LimitScope, ScopeKind
from mainstay.serving.types import RateState


@value
class Ask:
    """What one request needs at most: tokens (input ceiling and output limit) and nano-dollars.

    `least_nusd`: the worst case of the shortest answer still of use. None for both amounts: the price is
    unknown, which any hard budget refuses. `max_tokens_within` tells, for a refusal, how many output tokens an
    amount of nano-dollars pays for (0 or None: not even one).
    """

    tokens: int
    wanted_nusd: int | None
    least_nusd: int | None
    max_tokens_within: Callable[[int], int | None] | None = None


@value
class Hold:
    """What is set aside for one request, over all of `scopes`, until it is settled.

    `nusd` may be less than was wanted: the call must then be made to fit. `rate` is the tightest
    request limit's state, `token_rate` the tightest token limit's, for the response headers.
    `soft_exceeded` names the soft budgets that are spent, e.g. `team support: $50.00 a month`.
    """

    id: str
    scopes: tuple[LimitScope, ...]
    nusd: int
    tokens: int
    at_us: int
    tracked: bool = True
    rate: RateState | None = None
    token_rate: RateState | None = None
    soft_exceeded: tuple[str, ...] = ()
    remaining_nusd: int | None = None
    """Left of the tightest hard budget after this hold; None without one."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Where one budget of one scope stands. `resets_at_us` None: never (window `total`)."""

    kind: ScopeKind
    scope_id: str
    scope_name: str
    window: BudgetWindow
    hard: bool
    limit_nusd: int
    spent_nusd: int
    held_nusd: int
    resets_at_us: int | None

    @property
    def available_nusd(self) -> int:
        return self.limit_nusd - self.spent_nusd - self.held_nusd


@dataclass(frozen=True, slots=True)
class LimiterFigures:
    """How a process's limiter is. `let_through`: requests that no counter saw while the shared store was away;
    `unsettled`: settlements that it has not confirmed."""

    holds_open: int
    store_down: bool = False
    let_through: int = 0
    unsettled: int = 0


class Limiter(Protocol):
    """Admits requests against the limits of every scope they fall under, all or nothing.

    Two implementations: in memory with a journal (one process), and Redis (shared by many).
    """

    async def reserve(self, scopes: Sequence[LimitScope], ask: Ask) -> Hold:
        """Count the request against every rate, take a concurrency slot of each, and hold the money.

        Raises RateLimited, TokensLimited, TooManyAtOnce, RequestExceedsBudget, InsufficientQuota,
        BudgetInFlight, PriceUnknown or BudgetStoreUnavailable; on a refusal nothing stays counted or held.
        """
        ...

    async def resize(self, hold: Hold, ask: Ask) -> Hold:
        """Grow or shrink an open hold before money is spent, by `reserve`'s rules for budgets; on a refusal the
        old hold stays."""
        ...

    def settle(self, hold: Hold, cost_nusd: int | None, tokens: int | None) -> None:
        """Turn the hold into spend and give back what was not used: once, at once, never raising.

        None settles at the whole hold. `tokens`: what was used of the token limits.
        """
        ...

    def withdraw(self, hold: Hold) -> None:
        """Undo a reservation whose request is not made: money, tokens, slot and the request itself."""
        ...

    async def states(self, scopes: Sequence[LimitScope]) -> tuple[BudgetState, ...]:
        """Where every budget of these scopes stands now."""
        ...

    def start(self) -> None:
        """Begin what the limiter does by itself on the running event loop."""
        ...

    def figures(self) -> LimiterFigures: ...

    async def close(self) -> None: ...
