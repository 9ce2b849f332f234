"""Limits and budgets: what everything may use, and where each budget stands in its current window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mainstay.core.money import show_usd
from mainstay.govern import Directory, LimitScope, ScopeKind, budget_text, limit_texts
from mainstay.govern.types import ApiKey, Limits
from mainstay.services import LimitsInUse
from mainstay.serving import may_use
from mainstay.serving.limits.types import BudgetState

NEAR_LIMIT = 0.8
_WINDOWS = {"day": "today", "week": "this week", "month": "this month", "total": "in all"}
KIND_WORDS: Mapping[ScopeKind, str] = {
    "key": "Keys",
    "user": "People",
    "team": "Teams",
    "project": "Projects",
    "app": "Apps",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget of one scope in its current window."""

    state: BudgetState

    @property
    def name(self) -> str:
        """`team support`"""
        return f"{self.state.kind} {self.state.scope_name}"

    @property
    def share(self) -> float:
        """Spent, as a share of the limit; a limit of nothing is spent."""
        return self.state.spent_nusd / self.state.limit_nusd if self.state.limit_nusd else 1.0

    @property
    def condition(self) -> str:
        """`bad`: nothing is left and requests are refused; `risk`: little is, or a soft budget is spent."""
        if self.state.hard:
            return "bad" if self.share >= 1 else "risk" if self.share >= NEAR_LIMIT else ""
        return "risk" if self.share >= 1 else ""

    @property
    def verdict(self) -> str:
        """The condition in words; empty when there is nothing to say."""
        if not self.condition:
            return ""
        return "nearly spent" if self.share < 1 else "spent" if self.state.hard else "over the soft budget"

    @property
    def text(self) -> str:
        return _spent_of(self.state.spent_nusd, self.state.limit_nusd, self.state.window)

    @property
    def left_nusd(self) -> int:
        """Neither spent nor held; a budget that was lowered below its spend has nothing left, not less."""
        return max(0, self.state.available_nusd)

    @property
    def left_share(self) -> float:
        return self.left_nusd / self.state.limit_nusd if self.state.limit_nusd else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the page: a budget of a scope and its state (None: not known now), or only its rates.

    `first` of the rows of its scope, which tells its name and rates.
    """

    scope: LimitScope
    first: bool
    limit: str | None = None
    hard: bool = True
    budget: Budget | None = None

    @property
    def rates(self) -> tuple[str, ...]:
        own = self.scope.limits
        rates = Limits(own.requests_per_minute, own.tokens_per_minute, own.concurrent_requests)
        return limit_texts(rates)


def lines(now: LimitsInUse) -> tuple[Line, ...]:
    """Every scope in use that has limits, a row for each of its budgets."""
    known = {(s.kind, s.scope_id, s.window, s.hard): Budget(s) for s in now.states or ()}
    found: list[Line] = []
    for scope in now.scopes:
        rows = [
            Line(scope, at == 0, budget_text(b), b.hard, known.get((scope.kind, scope.id, b.window, b.hard)))
            for at, b in enumerate(scope.limits.budgets)
        ]
        found += rows or [Line(scope, True)]
    return tuple(found)


def budgets(now: LimitsInUse) -> tuple[Budget, ...]:
    """Every budget whose state is known, the fullest first."""
    known = [Budget(state) for state in now.states or ()]
    return tuple(sorted(known, key=lambda b: (-b.share, b.state.scope_name)))


def of_app(every: Iterable[Budget], app: str, keys: Mapping[str, ApiKey]) -> str | None:
    """`app: $1.00 of $5 today; keys: $3.00 of $30 this month`; None without any hard budget.

    Keys are those that may ask the app, summed by window. What they spent on other apps is in it: their budgets
    are theirs, not the app's.
    """
    own: list[str] = []
    sums: dict[str, tuple[int, int]] = {}
    for budget in every:
        state = budget.state
        if not state.hard:
            continue
        if state.kind == "app" and state.scope_id == app:
            own.append(budget.text)
        elif state.kind == "key" and state.scope_id in keys and may_use(keys[state.scope_id], app):
            spent, limit = sums.get(state.window, (0, 0))
            sums[state.window] = (spent + state.spent_nusd, limit + state.limit_nusd)
    of_keys = [_spent_of(*sums[window], window) for window in _WINDOWS if window in sums]
    told = [("app: ", own), ("keys: ", of_keys)]
    return "; ".join(who + ", ".join(texts) for who, texts in told if texts) or None


def choices(
    directory: Directory, apps: Iterable[str], taken: Iterable[LimitScope]
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """What limits can be set on and has none: (`Teams`, ((`team:team_…`, `support`), …)), empty kinds left out."""
    limited = {(scope.kind, scope.id) for scope in taken}
    names: dict[ScopeKind, dict[str, str]] = {
        "key": {k.id: k.name for k in directory.keys.values() if k.revoked_at_us is None},
        "user": {u.id: u.name for u in directory.users.values() if u.disabled_at_us is None},
        "team": {t.id: t.name for t in directory.teams.values()},
        "project": {p.id: p.name for p in directory.projects.values()},
        "app": {app: app for app in apps},
    }
    groups = []
    for kind, named in names.items():
        free = sorted((name, i) for i, name in named.items() if (kind, i) not in limited)
        if free:
            groups.append((KIND_WORDS[kind], tuple((f"{kind}:{i}", name) for name, i in free)))
    return tuple(groups)


def _spent_of(spent_nusd: int, limit_nusd: int, window: str) -> str:
    """`$0.42 of $25 this month`."""
    return f"{show_usd(spent_nusd)} of {show_usd(limit_nusd).removesuffix('.00')} {_WINDOWS[window]}"
