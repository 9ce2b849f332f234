"""Limits that another process counts in its memory: a control plane beside a gateway, without Redis."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.govern.types import LimitScope
from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits.types import Ask, BudgetState, Hold, LimiterFigures


class LimitsElsewhere:
    """A `Limiter` that counts nothing. What a hard budget would have to pay for is refused: nobody would see it."""

    async def reserve(self, scopes: Sequence[LimitScope], ask: Ask) -> Hold:
        """See `Limiter.reserve`."""
        for scope in scopes:
            if any(budget.hard for budget in scope.limits.budgets):
                raise _elsewhere(f"The budget of {scope.kind} {scope.name!r} is kept")
        return Hold("", tuple(scopes), ask.wanted_nusd or 0, ask.tokens, 0, tracked=False)

    async def resize(self, hold: Hold, ask: Ask) -> Hold:
        return hold

    def settle(self, hold: Hold, cost_nusd: int | None, tokens: int | None) -> None:
        """Nothing is held here."""

    def withdraw(self, hold: Hold) -> None:
        """Nothing is held here."""

    async def states(self, scopes: Sequence[LimitScope]) -> tuple[BudgetState, ...]:
        if any(scope.limits.budgets for scope in scopes):
            raise _elsewhere("Budgets are kept")
        return ()

    def start(self) -> None:
        """Nothing runs by itself here."""

    def figures(self) -> LimiterFigures:
        return LimiterFigures(0)

    async def close(self) -> None: ...


def _elsewhere(what: str) -> BudgetStoreUnavailable:
    return BudgetStoreUnavailable(
        f"{what} in the memory of the gateway's process; this is the control plane alone.",
        fix="Set redis_url (MAINSTAY_REDIS_URL) for both, or run both as one: `mainstay up`.",
    )
