"""Limits shared by many processes through Redis: one round trip to reserve, one to settle, for all scopes at once.

*Who is right*: Redis. Its clock decides about windows, rates and expiry; every operation is a Lua script.

*Dead processes*: a hold belongs to a process that renews it while it lives. When `hold_ttl_s` passes without, any
process's sweeper settles it in full, once. Should its true cost still come within a day (the process was only cut
off), the spend is corrected to it.

*Redis away or slow*: after `timeout_s` the call counts as failed, and a breaker spares the following ones the
wait. Scopes with a hard budget are then refused (503, `Retry-After: 1`). Scopes with rates, concurrency or soft
budgets only are let through uncounted, and `let_through` says how many. Settlements wait, in the outbox file if one
is given, and are repeated until Redis has them. To keep what was spent, Redis must be persistent (append-only file) and evict nothing
(`maxmemory-policy noeviction`, its default).

*Exactness*: Lua compares doubles, exact to 2^53, so a budget may be 9,007,199 dollars at most. Spend is added in
64-bit integers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.core.errors import ConfigError
from mainstay.core.money import show_usd
from mainstay.govern.types import Budget, BudgetWindow, Limits, LimitScope
from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits import refusals
from mainstay.serving.limits.accounts import budget_state
from mainstay.serving.limits.outbox import Outbox, Settlement
from mainstay.serving.limits.redis_batches import Batches
from mainstay.serving.limits.redis_store import Operation, RedisStore, Result
from mainstay.serving.limits.spent import Durations, OnSoftExceeded, label_of, tell_spent
from mainstay.serving.limits.types import Ask, BudgetState, Hold, LimiterFigures
from mainstay.serving.limits.windows import FOREVER_US, WindowCache
from mainstay.serving.types import RateState

log = logging.getLogger(__name__)

EXACT_NUSD = 2**53 - 1
"""The largest budget: above it Lua's numbers are no longer exact."""

_CHUNK_NUSD = 2**52
_MINUTE_MS = 60_000
_KEPT_MS = 35 * 86_400_000
"""How long a window's spend is kept after its end."""
_SWEPT_AT_ONCE = 100
_WARNED_AT_MOST = 10_000


class RedisLimiter:
    """A `Limiter`. Used from one event loop; `settle` may be called from any thread.

    `clock` None: Redis's own. `hold_max_s`: a hold that its process never settled is no longer renewed then.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        prefix: str = "mainstay",
        timeout_s: float = 0.25,
        hold_ttl_s: float = 60,
        hold_max_s: float = 3600,
        outbox_path: Path | None = None,
        on_soft_exceeded: OnSoftExceeded | None = None,
    ) -> None:
        self._clock = clock
        self._hold_ttl_s = hold_ttl_s
        self._hold_max_us = int(hold_max_s * US_PER_S)
        self._on_soft_exceeded = on_soft_exceeded
        self._batches = Batches(
            RedisStore(url, prefix, timeout_s, hold_ttl_s), timeout_s, clock or (lambda: 0)
        )
        self._outbox = Outbox(outbox_path)
        self._windows = WindowCache()
        self._compiled: dict[tuple[str, str], _Compiled] = {}
        self._open: dict[str, tuple[int, list[_Compiled]]] = {}
        self._offset_us = 0
        self._durations = Durations()
        self._warned: dict[tuple[str, str, str], None] = {}
        self._id_prefix = f"hold_{os.urandom(8).hex()}"
        self._ids = itertools.count(1)
        self._beat_timer: asyncio.TimerHandle | None = None
        self.let_through = 0
        for hold_id, settlement in list(self._outbox.pending.items()):
            self._tell(hold_id, settlement)

    def start(self) -> None:
        """Tell Redis what the outbox file kept, and begin to renew and sweep; else the first request does."""
        self._batches.start()
        self._start_beating()

    async def reserve(self, scopes: Sequence[LimitScope], ask: Ask) -> Hold:
        """See `Limiter.reserve`."""
        hold_id = f"{self._id_prefix}{next(self._ids):x}"
        now = self._now()
        limited = [self._compile(scope, now) for scope in scopes if not scope.limits.unlimited]
        if not limited:
            return Hold(hold_id, tuple(scopes), ask.wanted_nusd or 0, ask.tokens, now, False)
        hard = _first_hard(limited)
        if hard is not None and ask.wanted_nusd is None:
            raise refusals.price_unknown(hard)
        try:
            result = await self._reserved(hold_id, limited, ask)
        except BudgetStoreUnavailable:
            if hard is not None:
                raise
            self.let_through += 1
            return Hold(hold_id, tuple(scopes), ask.wanted_nusd or 0, ask.tokens, now, False)
        if result[0] != "ok":
            raise self._refusal(result, limited, ask, ask.tokens)
        self._open[hold_id] = (int(result[3]), limited)
        return self._hold(hold_id, tuple(scopes), ask, limited, result)

    async def resize(self, hold: Hold, ask: Ask) -> Hold:
        """See `Limiter.resize`: by the budgets' and token limits' rules, in the windows the hold was reserved in."""
        if not hold.tracked:
            return replace(hold, nusd=ask.wanted_nusd or 0, tokens=ask.tokens)
        _, limited = self._open.get(hold.id, (0, []))
        hard = _first_hard(limited)
        if hard is not None and ask.wanted_nusd is None:
            raise refusals.price_unknown(hard)
        result = await self._batches.call(["resize", hold.id, *_amounts(ask)])
        if result[0] == "gone":
            raise refusals.store_unavailable("the hold of this request has expired")
        if result[0] != "ok":
            raise self._refusal(result, limited, ask, ask.tokens - hold.tokens)
        remaining = None if result[2] == "none" else int(result[2]) - int(result[1])
        return replace(hold, nusd=int(result[1]), tokens=ask.tokens, remaining_nusd=remaining)

    def settle(self, hold: Hold, cost_nusd: int | None, tokens: int | None) -> None:
        """See `Limiter.settle`. Goes to Redis with the next batch; until Redis has it, the whole hold counts."""
        if not hold.tracked or hold.id in self._outbox.pending:
            return
        at_us, _ = self._open.pop(hold.id, (None, []))
        if at_us is not None:
            self._durations.add(self._now() - at_us)
        self._outbox.add(hold.id, (cost_nusd, tokens))
        self._tell(hold.id, (cost_nusd, tokens))

    def withdraw(self, hold: Hold) -> None:
        """See `Limiter.withdraw`."""
        if self._open.pop(hold.id, None) is not None:
            self._batches.tell(["cancel", hold.id])

    async def states(self, scopes: Sequence[LimitScope]) -> tuple[BudgetState, ...]:
        now = self._now()
        limited = [self._compile(scope, now) for scope in scopes if scope.limits.budgets]
        if not limited:
            return ()
        result = await self._batches.call(["money", [compiled.arguments for compiled in limited]])
        return tuple(self._states(limited, result[1]))

    async def sweep(self) -> int:
        """Settle in full what dead processes left; how many holds that were. Runs by itself, too."""
        result = await self._batches.call(["sweep", _SWEPT_AT_ONCE])
        return int(result[1])

    async def close(self) -> None:
        """What Redis has not confirmed by then stays in the outbox file, for the next start."""
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        await self._batches.close()
        self._outbox.close()

    def figures(self) -> LimiterFigures:
        return LimiterFigures(len(self._open), self.down, self.let_through, self.unsettled)

    @property
    def down(self) -> bool:
        """Whether the breaker is open: Redis did not answer in time, and no probe has reached it since."""
        return self._batches.down

    @property
    def unsettled(self) -> int:
        """Settlements that Redis has not confirmed."""
        return len(self._outbox.pending)

    async def _reserved(self, hold_id: str, limited: list[_Compiled], ask: Ask) -> Result:
        """The script's answer; asked again when a window ended by Redis's clock and not yet by ours."""
        for _ in range(3):
            from_us = max(compiled.from_us for compiled in limited)
            until_us = min(compiled.until_us for compiled in limited)
            scopes = [compiled.arguments for compiled in limited]
            soft = any(compiled.soft for compiled in limited)
            result = await self._batches.call(
                ["reserve", hold_id, from_us, until_us, *_amounts(ask), scopes, soft]
            )
            self._start_beating()
            if result[0] == "cancelled":
                break
            if result[0] != "window":
                return result
            self._set_clock()
            limited[:] = [self._compile(compiled.scope, self._now()) for compiled in limited]
        raise refusals.store_unavailable("this reservation was overtaken")

    def _hold(
        self,
        hold_id: str,
        scopes: tuple[LimitScope, ...],
        ask: Ask,
        limited: list[_Compiled],
        result: Result,
    ) -> Hold:
        _, granted, left, at_us, rates, money = result
        remaining = None if left == "none" else int(left) - int(granted)
        rate = _tightest(
            (c.limits.requests_per_minute, used[0]) for c, used in zip(limited, rates, strict=True)
        )
        tokens = _tightest(
            (c.limits.tokens_per_minute, used[1]) for c, used in zip(limited, rates, strict=True)
        )
        soft = self._soft_exceeded(limited, money) if any(c.soft for c in limited) else ()
        return Hold(hold_id, scopes, int(granted), ask.tokens, at_us, True, rate, tokens, soft, remaining)

    def _soft_exceeded(self, limited: list[_Compiled], money: list[list[int]]) -> tuple[str, ...]:
        names = []
        for state in self._states(limited, money):
            if state.hard or state.spent_nusd < state.limit_nusd:
                continue
            names.append(label_of(state))
            window = self._windows.at(state.window, self._now()).id
            if (state.kind, state.scope_id, window) not in self._warned:
                self._remember_warned((state.kind, state.scope_id, window))
                tell_spent(state, self._on_soft_exceeded)
        return tuple(names)

    def _remember_warned(self, account: tuple[str, str, str]) -> None:
        self._warned[account] = None
        if len(self._warned) > _WARNED_AT_MOST:  # those of windows long over
            del self._warned[next(iter(self._warned))]

    def _states(self, limited: list[_Compiled], money: list[list[int]]) -> Iterator[BudgetState]:
        rows = iter(money)
        for compiled in limited:
            by_window = {window: next(rows) for window in compiled.windows}
            for budget in compiled.limits.budgets:
                spent, held, chunks = by_window[budget.window]
                window = compiled.windows[budget.window]
                yield budget_state(compiled.scope, budget, window, spent + chunks * _CHUNK_NUSD, held)

    def _refusal(self, result: Result, limited: list[_Compiled], ask: Ask, more: int) -> Exception:
        kind = result[0]
        if kind == "money":
            return refusals.budget_refused(
                list(self._states(limited, result[1])), ask, self._durations.usual_s()
            )
        compiled = limited[int(result[1]) - 1]
        scope, limits = compiled.scope, compiled.limits
        if kind == "slots":
            return refusals.too_many_at_once(
                scope, limits.concurrent_requests or 0, self._durations.usual_s()
            )
        if kind == "requests":
            limit = limits.requests_per_minute or 0
            owed_s = _rate_state(limit, result[3]).reset_s
            return refusals.requests_limited(scope, limit, int(result[2]) * 1000, owed_s)
        limit = limits.tokens_per_minute or 0
        if kind == "large":
            return refusals.tokens_over_limit(scope, limit, ask.tokens)
        state = _rate_state(limit, result[3])
        return refusals.tokens_limited(scope, limit, more, int(result[2]) * 1000, state)

    def _tell(self, hold_id: str, settlement: Settlement) -> None:
        cost_nusd, tokens = settlement
        cost = -1 if cost_nusd is None else min(cost_nusd, EXACT_NUSD)
        operation: Operation = ["settle", hold_id, cost, -1 if tokens is None else tokens]
        self._batches.tell(operation, lambda: self._outbox.done(hold_id))

    def _compile(self, scope: LimitScope, now: int) -> _Compiled:
        key = (scope.kind, scope.id)
        found = self._compiled.get(key)
        if found is None or found.limits is not scope.limits or not found.from_us <= now < found.until_us:
            if found is None and len(self._compiled) >= 100_000:
                self._compiled.pop(next(iter(self._compiled)))
            found = self._compiled[key] = _Compiled(scope, self._windows, now)
        return found

    def _now(self) -> int:
        return self._clock() if self._clock is not None else now_us() + self._offset_us

    def _set_clock(self) -> None:
        if self._clock is None and self._batches.redis_us is not None:
            self._offset_us = self._batches.redis_us - now_us()

    def _start_beating(self) -> None:
        if self._beat_timer is None and self._batches.loop is not None:
            self._beat_timer = self._batches.loop.call_later(self._hold_ttl_s / 3, self._beat)

    def _beat(self) -> None:
        """Renew what is open here, sweep what others left."""
        now = self._now()
        mine = [hold_id for hold_id, (at_us, _) in self._open.items() if now - at_us < self._hold_max_us]
        if not self._batches.down:
            self._batches.tell(["renew", mine])
            self._batches.tell(["sweep", _SWEPT_AT_ONCE])
        self._beat_timer = None
        self._start_beating()


class _Compiled:
    """One scope's limits as the script takes them, good while its windows last."""

    __slots__ = ("arguments", "from_us", "limits", "scope", "soft", "until_us", "windows")

    def __init__(self, scope: LimitScope, cache: WindowCache, now: int) -> None:
        check_limits(scope.limits)
        self.scope, self.limits = scope, scope.limits
        by_window: dict[BudgetWindow, list[Budget]] = {}
        for budget in scope.limits.budgets:
            by_window.setdefault(budget.window, []).append(budget)
        windows = {kind: cache.at(kind, now) for kind in by_window}
        self.windows = windows
        self.soft = any(not budget.hard for budget in scope.limits.budgets)
        self.from_us = max((window.from_us for window in windows.values()), default=0)
        self.until_us = min((window.until_us for window in windows.values()), default=FOREVER_US)
        limits = scope.limits
        arguments: list[Any] = [
            f"{scope.kind}:{scope.id}",
            _or_none(limits.requests_per_minute),
            _or_none(limits.tokens_per_minute),
            _or_none(limits.concurrent_requests),
            [[windows[kind].id, _hard_nusd(budgets)] for kind, budgets in by_window.items()],
            0 if "total" in windows else max((_forget_ms(w.until_us) for w in windows.values()), default=1),
        ]
        self.arguments = msgspec.Raw(msgspec.msgpack.encode(arguments))


def check_limits(limits: Limits) -> None:
    """Raises ConfigError for a budget that Redis could not keep to the last nano-dollar."""
    for budget in limits.budgets:
        if budget.limit_nusd > EXACT_NUSD:
            raise ConfigError(
                f"A budget of {show_usd(budget.limit_nusd)} is too large to be shared through Redis.",
                fix=f"Set at most {show_usd(EXACT_NUSD)}, or none.",
            )


def _or_none(limit: int | None) -> int:
    return -1 if limit is None else limit


def _hard_nusd(budgets: list[Budget]) -> int:
    return min((budget.limit_nusd for budget in budgets if budget.hard), default=-1)


def _forget_ms(until_us: int) -> int:
    return until_us // 1000 + _KEPT_MS


def _first_hard(limited: list[_Compiled]) -> LimitScope | None:
    return next((c.scope for c in limited if any(budget.hard for budget in c.limits.budgets)), None)


def _amounts(ask: Ask) -> list[int]:
    """Wanted, least, tokens. More than any budget may be is as good as the largest."""
    wanted = min(ask.wanted_nusd or 0, EXACT_NUSD)
    least = wanted if ask.least_nusd is None else min(ask.least_nusd, EXACT_NUSD)
    return [wanted, least, ask.tokens]


def _tightest(limits: Iterator[tuple[int | None, int]]) -> RateState | None:
    """Of (limit, used): where the one with the least left stands."""
    least: tuple[int, int] | None = None
    least_left = 0
    for limit, used in limits:
        if limit is not None and (least is None or limit * _MINUTE_MS - used < least_left):
            least, least_left = (limit, used), limit * _MINUTE_MS - used
    return None if least is None else _rate_state(*least)


def _rate_state(limit: int, used: int) -> RateState:
    remaining = (limit * _MINUTE_MS - used) // _MINUTE_MS
    return RateState(limit, max(0, remaining), used / limit / 1000 if limit else 0.0)
