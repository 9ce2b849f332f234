"""Hard budgets of the active API keys, as the ledger of this process has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mainstay.core.money import show_usd
from mainstay.govern.types import ApiKey
from mainstay.services import Services
from mainstay.serving import BudgetState, may_use

NEAR_LIMIT = 0.8
_WINDOWS = {"day": "today", "month": "this month", "total": "in all"}


@dataclass(frozen=True, slots=True)
class Budget:
    """One key's budget in its current window."""

    key: ApiKey
    state: BudgetState

    @property
    def share(self) -> float:
        """Spent, as a share of the limit; a limit of nothing is spent."""
        return self.state.spent_nusd / self.state.limit_nusd if self.state.limit_nusd else 1.0

    @property
    def condition(self) -> str:
        """`bad`: nothing is left; `risk`: little is."""
        return "bad" if self.share >= 1 else "risk" if self.share >= NEAR_LIMIT else ""

    @property
    def text(self) -> str:
        return _spent_of(self.state.spent_nusd, self.state.limit_nusd, self.key.budget_window)


def budgets(parts: Services) -> tuple[Budget, ...]:
    """Of every active key that has one, the fullest first."""
    found = [(key, parts.deps.ledger.state(key)) for key in parts.keys.active()]
    known = [Budget(key, state) for key, state in found if state is not None]
    return tuple(sorted(known, key=lambda b: (-b.share, b.key.name)))


def of_app(every: Iterable[Budget], app: str) -> str | None:
    """What the keys that may ask an app have spent of their budgets, summed by window; None without any.

    What they spent on other apps is in it: a budget is a key's, not an app's.
    """
    sums: dict[str, tuple[int, int]] = {}
    for budget in every:
        if may_use(budget.key, app):
            spent, limit = sums.get(budget.key.budget_window, (0, 0))
            sums[budget.key.budget_window] = (
                spent + budget.state.spent_nusd,
                limit + budget.state.limit_nusd,
            )
    return ", ".join(_spent_of(*sums[window], window) for window in _WINDOWS if window in sums) or None


def _spent_of(spent_nusd: int, limit_nusd: int, window: str) -> str:
    """`$0.42 of $25 this month`."""
    return f"{show_usd(spent_nusd)} of {show_usd(limit_nusd).removesuffix('.00')} {_WINDOWS[window]}"
