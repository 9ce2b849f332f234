"""What one scope has used: money by window, requests, tokens, and how many of its requests run now."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from mainstay.govern.types import Budget, BudgetWindow, LimitScope, ScopeKind
from mainstay.serving.limits.meters import Meter
from mainstay.serving.limits.types import BudgetState
from mainstay.serving.limits.windows import FOREVER_US, Window

AccountKey = tuple[str, str, str]
"""(scope kind, scope id, window id)"""


class Account:
    """Spent and held nano-dollars of one scope in one window, and the tightest limits on them.

    Two budgets of one window, say a soft one at half of a hard one, share an account.
    """

    __slots__ = ("hard_nusd", "held", "key", "scope", "soft_nusd", "spent", "warned", "window")

    def __init__(self, key: AccountKey, spent: int = 0) -> None:
        self.key = key
        self.spent = spent
        self.held = 0
        self.hard_nusd: int | None = None
        self.soft_nusd: int | None = None
        self.scope: LimitScope | None = None
        self.window: BudgetWindow = "total"
        self.warned = False

    def limit(self, scope: LimitScope, budgets: list[Budget]) -> None:
        """These budgets, all of one window, now apply."""
        self.scope, self.window = scope, budgets[0].window
        self.hard_nusd = min((b.limit_nusd for b in budgets if b.hard), default=None)
        soft_nusd = min((b.limit_nusd for b in budgets if not b.hard), default=None)
        if soft_nusd != self.soft_nusd:
            self.soft_nusd, self.warned = soft_nusd, False

    @property
    def json(self) -> bytes:
        return orjson.dumps(self.key)


class ScopeState:
    """Everything about one limited scope, kept between its requests."""

    __slots__ = ("accounts", "limits", "requests", "running", "scope", "slots", "tokens", "until_us")

    def __init__(self, scope: LimitScope) -> None:
        self.scope = scope
        self.limits = scope.limits
        self.running = 0
        self.slots: int | None = None
        self.requests: Meter | None = None
        self.tokens: Meter | None = None
        self.accounts: tuple[Account, ...] = ()
        self.until_us = FOREVER_US

    def apply(self, scope: LimitScope, now_us: int) -> None:
        """The scope's limits are these from now on; what is used of them stays used."""
        self.scope, self.limits = scope, scope.limits
        self.slots = scope.limits.concurrent_requests
        self.requests = _metered(self.requests, scope.limits.requests_per_minute, now_us)
        self.tokens = _metered(self.tokens, scope.limits.tokens_per_minute, now_us)

    def open_windows(
        self, window_at: Callable[[BudgetWindow], Window], account: Callable[[AccountKey], Account]
    ) -> None:
        """Count in the windows of this moment until the first of them ends."""
        by_window: dict[BudgetWindow, list[Budget]] = {}
        for budget in self.limits.budgets:
            by_window.setdefault(budget.window, []).append(budget)
        windows = {kind: window_at(kind) for kind in by_window}
        accounts = []
        for kind, budgets in by_window.items():
            found = account((self.scope.kind, self.scope.id, windows[kind].id))
            found.limit(self.scope, budgets)
            accounts.append(found)
        self.accounts = tuple(accounts)
        self.until_us = min((window.until_us for window in windows.values()), default=FOREVER_US)

    def idle(self, now_us: int) -> bool:
        meters = [meter for meter in (self.requests, self.tokens) if meter is not None]
        return self.running == 0 and not any(meter.drain(now_us) for meter in meters)


def budget_state(scope: LimitScope, budget: Budget, window: Window, spent: int, held: int) -> BudgetState:
    kind: ScopeKind = scope.kind
    return BudgetState(
        kind,
        scope.id,
        scope.name,
        budget.window,
        budget.hard,
        budget.limit_nusd,
        spent,
        held,
        window.resets_at_us,
    )


def _metered(meter: Meter | None, limit: int | None, now_us: int) -> Meter | None:
    if limit is None:
        return None
    if meter is None:
        return Meter(limit, now_us)
    meter.set_limit(limit)
    return meter
