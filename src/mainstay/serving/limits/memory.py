"""Limits in the memory of one process, with a journal so that money outlives it.

For a hard budget with limit L, `spent + held <= L` holds at every moment, so settling at most what was held can
never overspend. A hold still open when the process died is settled in full on the next start (see `replay`).
Rates and concurrency begin anew with the process. Scopes without any limit are not tracked: their cost is in the
traces.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import replace

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.govern.types import LimitScope
from mainstay.serving.limits import rates, refusals, replay
from mainstay.serving.limits.accounts import Account, AccountKey, ScopeState, budget_state
from mainstay.serving.limits.journal import Journal
from mainstay.serving.limits.meters import MINUTE_US, give_back, tightest
from mainstay.serving.limits.plans import Plan
from mainstay.serving.limits.spent import Durations, OnSoftExceeded, tell_spent
from mainstay.serving.limits.types import Ask, BudgetState, Hold, LimiterFigures
from mainstay.serving.limits.windows import WindowCache

log = logging.getLogger(__name__)

_TIDY_EVERY = 4096
_FORGET_ABOVE = 10_000
_PLANS_AT_MOST = 10_000


class _Open:
    """What an open hold keeps: settling undoes exactly this, whatever the limits are by then."""

    __slots__ = ("at_us", "nusd", "plan", "tokens")

    def __init__(self, nusd: int, tokens: int, at_us: int, plan: Plan) -> None:
        self.nusd = nusd
        self.tokens = tokens
        self.at_us = at_us
        self.plan = plan


class MemoryLimiter:
    """A `Limiter`. Safe from any thread; every method is short and does no network I/O.

    `on_soft_exceeded` hears once a window of each soft budget that is spent. Holds that nobody settled within
    `hold_max_s` are settled in full.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        clock: Clock = now_us,
        *,
        on_soft_exceeded: OnSoftExceeded | None = None,
        hold_max_s: float = 3600,
        limit_scopes: int = 100_000,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._on_soft_exceeded = on_soft_exceeded
        self._hold_max_us = int(hold_max_s * US_PER_S)
        self._limit_scopes = limit_scopes
        self._lock = threading.Lock()
        self._windows = WindowCache()
        self._scopes: dict[tuple[str, str], ScopeState] = {}
        self._accounts: dict[AccountKey, Account] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}
        self._open: dict[str, _Open] = {}
        self._durations = Durations()
        self._id_prefix = f"hold_{os.urandom(8).hex()}"
        self._ids = itertools.count(1)
        self._settled = 0
        self._forget_above = _FORGET_ABOVE
        if journal is not None:
            self._replay(journal)

    async def reserve(self, scopes: Sequence[LimitScope], ask: Ask) -> Hold:
        """See `Limiter.reserve`. The hold's journal entry is written before this returns."""
        now = self._clock()
        with self._lock:
            hold_id = f"{self._id_prefix}{next(self._ids):x}"
            plan = self._plans.get(tuple(map(id, scopes)))
            if plan is None or now >= plan.until_us:
                plan = self._planned(scopes, now)
                if plan is None:
                    return Hold(hold_id, tuple(scopes), ask.wanted_nusd or 0, ask.tokens, now, False)
            charged = ask.tokens * MINUTE_US
            requests, tokens = tightest(plan.requests, now), tightest(plan.tokens, now)
            if rates.full(plan, requests, tokens, charged):
                raise rates.refusal(plan.states, ask.tokens, now, self._durations.usual_s())
            granted, left = self._grant(plan.accounts, ask, now, freed_nusd=0)
            if plan.accounts and self._journal is not None:
                self._journal.append(replay.hold_entry(hold_id, granted, plan.accounts_json))
            soft, crossed = _soft_exceeded(plan.accounts) if plan.has_soft else ((), ())
            for account in plan.accounts:
                account.held += granted
            rates.take(plan, charged)
            rate = None if requests is None else requests.state()
            token_rate = None if tokens is None else tokens.state()
            self._open[hold_id] = _Open(granted, ask.tokens, now, plan)
        if crossed:
            self._warn(crossed)
        remaining = None if left is None else left - granted
        return Hold(
            hold_id, plan.scopes, granted, ask.tokens, now, True, rate, token_rate, soft, remaining
        )  # fmt: skip

    async def resize(self, hold: Hold, ask: Ask) -> Hold:
        """See `Limiter.resize`: by the budgets' and token limits' rules, in the windows the hold was reserved in."""
        now = self._clock()
        with self._lock:
            record = self._open.get(hold.id)
            if record is None:
                if hold.tracked:
                    raise refusals.store_unavailable("the hold of this request was settled before")
                return replace(hold, nusd=ask.wanted_nusd or 0, tokens=ask.tokens)
            more = ask.tokens - record.tokens
            accounts = record.plan.accounts
            meters = rates.token_meters(record.plan.states, record.at_us)
            if more > 0:
                rates.need_tokens(meters, ask.tokens, more, now)
            granted, left = self._grant(accounts, ask, now, freed_nusd=record.nusd)
            if granted != record.nusd and accounts and self._journal is not None:
                self._journal.append(replay.resize_entry(hold.id, granted))
            for account in accounts:
                account.held += granted - record.nusd
            for _, meter in meters:
                meter.give_back(-more, now)
            record.nusd, record.tokens = granted, ask.tokens
        remaining = None if left is None else left - granted
        return replace(hold, nusd=granted, tokens=ask.tokens, remaining_nusd=remaining)

    def settle(self, hold: Hold, cost_nusd: int | None, tokens: int | None) -> None:
        """See `Limiter.settle`. Its journal entry follows within 5 ms at most; should the process die before, the
        whole hold counts."""
        if not hold.tracked:
            return
        with self._lock:
            crossed = self._settle(hold.id, cost_nusd, tokens, self._clock())
            self._settled += 1
            if self._settled % _TIDY_EVERY == 0:
                self._tidy()
        if crossed:
            self._warn(crossed)

    def withdraw(self, hold: Hold) -> None:
        """See `Limiter.withdraw`."""
        now = self._clock()
        with self._lock:
            record = self._open.get(hold.id)
            for state in () if record is None else record.plan.states:
                meter = state.requests
                if record is not None and meter is not None and meter.since_us <= record.at_us:
                    meter.give_back(1, now)
            self._settle(hold.id, 0, 0, now)

    async def states(self, scopes: Sequence[LimitScope]) -> tuple[BudgetState, ...]:
        now = self._clock()
        with self._lock:
            found = []
            for scope in scopes:
                for budget in scope.limits.budgets:
                    window = self._windows.at(budget.window, now)
                    account = self._accounts.get((scope.kind, scope.id, window.id))
                    spent, held = (account.spent, account.held) if account else (0, 0)
                    found.append(budget_state(scope, budget, window, spent, held))
        return tuple(found)

    def balances(self) -> dict[AccountKey, tuple[int, int]]:
        """(spent, held) of every window in memory, those lately over included."""
        with self._lock:
            return {key: (account.spent, account.held) for key, account in self._accounts.items()}

    def start(self) -> None:
        """Nothing runs by itself here."""

    def figures(self) -> LimiterFigures:
        return LimiterFigures(len(self._open))

    async def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _planned(self, scopes: Sequence[LimitScope], now: int) -> Plan | None:
        """What requests under these scopes are counted against; None when nothing limits them."""
        live = self._live(scopes, now)
        if not live:
            return None
        if len(self._plans) >= _PLANS_AT_MOST:
            self._plans.clear()
        plan = self._plans[tuple(map(id, scopes))] = Plan(scopes, live)
        return plan

    def _live(self, scopes: Sequence[LimitScope], now: int) -> list[ScopeState]:
        """The states of the limited ones among `scopes`, brought to this moment's limits and windows."""
        live = []
        known = self._scopes
        for scope in scopes:
            state = known.get((scope.kind, scope.id))
            if state is None or state.limits is not scope.limits:
                if scope.limits.unlimited:
                    continue
                state = self._compiled(state, scope, now)
            elif now >= state.until_us:
                self._plans.clear()
                self._open_windows(state, now)
            live.append(state)
        return live

    def _compiled(self, state: ScopeState | None, scope: LimitScope, now: int) -> ScopeState:
        if state is None:
            state = self._scopes[(scope.kind, scope.id)] = ScopeState(scope)
        elif state.limits == scope.limits and now < state.until_us:
            state.limits = scope.limits
            return state
        else:
            self._plans.clear()  # some may count by what this scope's limits were
        state.apply(scope, now)
        self._open_windows(state, now)
        return state

    def _open_windows(self, state: ScopeState, now: int) -> None:
        state.open_windows(lambda window: self._windows.at(window, now), self._account)

    def _account(self, key: AccountKey) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(key)
        return account

    def _grant(
        self, accounts: list[Account], ask: Ask, now: int, freed_nusd: int
    ) -> tuple[int, int | None]:  # fmt: skip
        """(granted, left before it of the tightest hard budget)."""
        wanted = ask.wanted_nusd
        left: int | None = None
        for account in accounts:
            hard = account.hard_nusd
            if hard is not None:
                if wanted is None:
                    assert account.scope is not None
                    raise refusals.price_unknown(account.scope)
                rest = hard - account.spent - account.held + freed_nusd
                if left is None or rest < left:
                    left = rest
        if not wanted or left is None or left >= wanted:
            return wanted or 0, left
        if left < (wanted if ask.least_nusd is None else ask.least_nusd):
            raise self._budget_refusal(accounts, ask, now)
        return left, left

    def _budget_refusal(self, accounts: list[Account], ask: Ask, now: int) -> Exception:
        states = [self._account_state(account, account.hard_nusd, hard=True) for account in accounts]
        return refusals.budget_refused(
            [state for state in states if state is not None], ask, self._durations.usual_s()
        )  # fmt: skip

    def _account_state(self, account: Account, limit_nusd: int | None, *, hard: bool) -> BudgetState | None:
        if limit_nusd is None or account.scope is None:
            return None
        window = self._windows.at(account.window, self._clock())
        scope = account.scope
        resets = window.resets_at_us
        return BudgetState(
            scope.kind,
            scope.id,
            scope.name,
            account.window,
            hard,
            limit_nusd,
            account.spent,
            account.held,
            resets,
        )

    def _settle(self, hold_id: str, cost_nusd: int | None, tokens: int | None, now: int) -> list[Account]:
        """Settled once: nothing happens the second time. Returns the accounts whose soft budget is newly spent."""
        record = self._open.pop(hold_id, None)
        if record is None:
            return []
        held = record.nusd
        cost = held if cost_nusd is None else cost_nusd
        crossed: list[Account] = []
        plan = record.plan
        for account in plan.accounts:
            account.held -= held
            account.spent += cost
            soft = account.soft_nusd
            if soft is not None and account.spent >= soft and not account.warned:
                account.warned = True
                crossed.append(account)
        unused = 0 if tokens is None else record.tokens - tokens
        for state in plan.states:
            state.running -= 1
        if unused:
            give_back(plan.tokens, unused, now)
        self._durations.add(now - record.at_us)
        if plan.accounts and self._journal is not None:
            self._journal.defer(replay.settle_entry(hold_id, cost))
        return crossed

    def _warn(self, crossed: Sequence[Account]) -> None:
        for account in crossed:
            state = self._account_state(account, account.soft_nusd, hard=False)
            if state is not None:
                tell_spent(state, self._on_soft_exceeded)

    def _tidy(self) -> None:
        """Settle what was left behind, and forget scopes long idle."""
        now = self._clock()
        oldest = list(itertools.islice(self._open.items(), 64))
        for hold_id, record in oldest:
            if now - record.at_us > self._hold_max_us:
                log.error("hold %s was never settled; it now is, in full", hold_id)
                self._settle(hold_id, None, None, now)
        if len(self._accounts) > self._forget_above:
            self._forget_past()
            self._forget_above = max(_FORGET_ABOVE, 2 * len(self._accounts))
        excess = len(self._scopes) - self._limit_scopes
        if excess > 0:
            first = list(itertools.islice(self._scopes.items(), excess + _TIDY_EVERY))
            for key, state in first:
                if state.idle(now):
                    del self._scopes[key]
            self._plans.clear()  # some may count by a scope that is forgotten

    def _replay(self, journal: Journal) -> None:
        found = replay.Replay(journal.entries())
        if found.left_open:
            log.warning("%d holds were open when the last process ended; they count in full", found.left_open)
        for key, spent in found.spent.items():
            self._accounts[key] = Account(key, spent)
        self._forget_past()
        journal.rewrite([replay.spend_entry(a.key, a.spent) for a in self._accounts.values()])
        journal.on_large(self._compact)

    def _compact(self) -> None:
        assert self._journal is not None
        with self._lock:  # nobody appends between the state and the mark; the slow writing is outside
            self._forget_past()
            spent = [(account.key, account.spent) for account in self._accounts.values()]
            holds = [
                (hold_id, record.nusd, record.plan.accounts_json)
                for hold_id, record in self._open.items()
                if record.plan.accounts
            ]
            self._journal.begin_rewrite()
        bodies = [replay.spend_entry(*entry) for entry in spent]
        self._journal.finish_rewrite(bodies + [replay.hold_entry(*entry) for entry in holds])

    def _forget_past(self) -> None:
        """Accounts of windows that are over go, unless money is held in them."""
        now = self._clock()
        current = {self._windows.at(window, now).id for window in ("day", "week", "month", "total")}
        past = [key for key, account in self._accounts.items() if key[2] not in current and not account.held]
        for key in past:
            del self._accounts[key]


def _soft_exceeded(accounts: list[Account]) -> tuple[tuple[str, ...], Sequence[Account]]:
    """(names of the soft budgets that are spent, the accounts of which that is news)."""
    names: list[str] = []
    crossed: list[Account] = []
    for account in accounts:
        soft = account.soft_nusd
        if soft is not None and account.spent >= soft and account.scope is not None:
            names.append(refusals.budget_label(account.scope.name, account.scope.kind, soft, account.window))
            if not account.warned:
                account.warned = True
                crossed.append(account)
    return tuple(names), crossed
