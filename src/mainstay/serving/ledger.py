"""Budgets: reserve the worst case before a call, settle the true cost once after it.

All amounts are integer nano-dollars. For a budget with limit L, `spent + held <= L` holds at every moment,
so settling at most what was held can never overspend. A hold still open when the process died is settled
at its full amount on the next start: what the provider billed cannot be known, and free would be a hole.

One process owns the ledger (the journal is locked). Keys without a budget are not tracked here; their cost
is in the traces.
"""

from __future__ import annotations

import logging
import statistics
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mainstay.core.clock import US_PER_S, Clock, now_us, to_datetime, to_iso
from mainstay.core.ids import new_id
from mainstay.core.money import show_usd
from mainstay.govern.types import ApiKey
from mainstay.serving.errors import BudgetInFlight, InsufficientQuota, RequestExceedsBudget
from mainstay.serving.journal import Entry, Journal, JournalUnavailable

log = logging.getLogger(__name__)

Window = Literal["day", "month", "total"]
Account = tuple[str, str]
"""(key id, window id); a window id is `2026-11-24`, `2026-11` or `total`, in UTC."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one request. `account` None: the caller has no budget, nothing is tracked."""

    id: str
    account: Account | None
    nusd: int
    at_us: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Where a budget stands. `resets_at_us` None: never (window `total`)."""

    limit_nusd: int
    spent_nusd: int
    held_nusd: int
    resets_at_us: int | None

    @property
    def available_nusd(self) -> int:
        return self.limit_nusd - self.spent_nusd - self.held_nusd


class Ledger:
    """Holds and spend by account. Safe from any thread; every method is short and does no network I/O."""

    def __init__(self, journal: Journal | None = None, clock: Clock = now_us) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: dict[Account, int] = {}
        self._held: dict[Account, int] = {}
        self._open: dict[str, Hold] = {}
        self._durations_s: deque[float] = deque(maxlen=64)
        if journal is not None:
            self._replay(journal.entries())
            journal.rewrite(self._balances())
            journal.on_large(self._compact)

    def reserve(self, key: ApiKey | None, wanted_nusd: int, least_nusd: int) -> Hold:
        """Hold `wanted_nusd`, or what is left if that is at least `least_nusd`.

        Raises RequestExceedsBudget (400) when `least_nusd` is above the whole limit, InsufficientQuota (429)
        when the window is spent, BudgetInFlight (429) when only running requests' holds stand in the way.
        """
        now = self._clock()
        if key is None or key.budget_nusd is None:
            return Hold(new_id("hold"), None, wanted_nusd, now)
        with self._lock:
            account = (key.id, window_id(key.budget_window, now))
            granted = self._grant(key, account, wanted_nusd, least_nusd, freed_nusd=0)
            hold = Hold(new_id("hold"), account, granted, now)
            self._write(["reserve", hold.id, *account, granted])
            self._keep(hold)
        return hold

    def resize(self, key: ApiKey | None, hold: Hold, wanted_nusd: int, least_nusd: int) -> Hold:
        """Grow or shrink an open hold before money is spent, by `reserve`'s rules; the old one stays on refusal."""
        if key is None or hold.account is None:
            return Hold(hold.id, None, wanted_nusd, hold.at_us)
        with self._lock:
            granted = self._grant(key, hold.account, wanted_nusd, least_nusd, freed_nusd=hold.nusd)
            resized = Hold(hold.id, hold.account, granted, hold.at_us)
            if granted != hold.nusd:
                self._write(["resize", hold.id, granted])
                self._held[hold.account] -= hold.nusd
                self._keep(resized)
        return resized

    def settle(self, hold: Hold, cost_nusd: int | None) -> bool:
        """Turn a hold into spend, once; False when it was settled before. None settles at the whole hold."""
        if hold.account is None:
            return True
        with self._lock:
            current = self._open.pop(hold.id, None)
            if current is None:
                return False
            cost = current.nusd if cost_nusd is None else cost_nusd
            self._held[hold.account] -= current.nusd
            self._spent[hold.account] = self._spent.get(hold.account, 0) + cost
            self._durations_s.append((self._clock() - hold.at_us) / US_PER_S)
            try:
                self._write(["settle", hold.id, cost])
            except JournalUnavailable as error:  # memory is right; after a restart the whole hold counts
                log.error("a settlement was not recorded: %s", error)  # noqa: TRY400
        return True

    def state(self, key: ApiKey) -> BudgetState | None:
        """Where the key's budget stands now; None without one."""
        if key.budget_nusd is None:
            return None
        now = self._clock()
        with self._lock:
            return self._state(key, (key.id, window_id(key.budget_window, now)))

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _state(self, key: ApiKey, account: Account) -> BudgetState:
        assert key.budget_nusd is not None
        resets = window_end_us(key.budget_window, self._clock())
        return BudgetState(key.budget_nusd, self._spent.get(account, 0), self._held.get(account, 0), resets)

    def _grant(self, key: ApiKey, account: Account, wanted: int, least: int, freed_nusd: int) -> int:
        state = self._state(key, account)
        available = state.available_nusd + freed_nusd
        if wanted == 0 or available >= wanted:
            return wanted
        if available >= least:
            return available
        raise self._refusal(key, state, least)

    def _refusal(self, key: ApiKey, state: BudgetState, least: int) -> Exception:
        detail = {
            "limit_source": "key",
            "scope": key.id,
            "limit_nusd": state.limit_nusd,
            "settled_nusd": state.spent_nusd,
            "held_nusd": state.held_nusd,
            "resets_at": None if state.resets_at_us is None else to_iso(state.resets_at_us),
        }
        limit = f"the key's budget of {show_usd(state.limit_nusd)} per {key.budget_window}"
        if least > state.limit_nusd:
            return RequestExceedsBudget(
                f"At least {show_usd(least)} must be held for this request, more than {limit}.",
                fix="Send a shorter input or ask a cheaper model.",
                **detail,
            )
        if state.spent_nusd + least > state.limit_nusd:
            return InsufficientQuota(
                f"{limit[0].upper()}{limit[1:]} is spent ({show_usd(state.spent_nusd)}).",
                fix="Wait for the next window, or ask an administrator for a larger budget.",
                retry_after_s=None,
                **detail,
            )
        return BudgetInFlight(
            f"The rest of {limit} is held by requests that are still running.",
            fix="Try again when one of them has ended.",
            retry_after_s=self._usual_duration_s(),
            **detail,
        )

    def _usual_duration_s(self) -> float:
        return statistics.median(self._durations_s) if self._durations_s else 1.0

    def _keep(self, hold: Hold) -> None:
        assert hold.account is not None
        self._open[hold.id] = hold
        self._held[hold.account] = self._held.get(hold.account, 0) + hold.nusd

    def _write(self, entry: Entry) -> None:
        if self._journal is not None:
            self._journal.append(entry)

    def _replay(self, entries: list[Entry]) -> None:
        for kind, *fields in entries:
            if kind == "spent":
                self._spent[(fields[0], fields[1])] = fields[2]
            elif kind == "reserve":
                self._keep(Hold(fields[0], (fields[1], fields[2]), fields[3], 0))
            elif kind == "resize":
                old = self._open.get(fields[0])
                if old is not None and old.account is not None:
                    self._held[old.account] -= old.nusd
                    self._keep(Hold(old.id, old.account, fields[1], 0))
            elif kind == "settle":
                self._replay_settle(fields[0], fields[1])
        for hold in list(self._open.values()):
            self._replay_settle(hold.id, hold.nusd)

    def _replay_settle(self, hold_id: str, cost_nusd: int) -> None:
        hold = self._open.pop(hold_id, None)
        if hold is not None and hold.account is not None:
            self._held[hold.account] -= hold.nusd
            self._spent[hold.account] = self._spent.get(hold.account, 0) + cost_nusd

    def _compact(self) -> None:
        assert self._journal is not None
        with self._lock:  # nobody appends between the state and the mark; the slow writing is outside
            entries = list(self._balances())
            self._journal.begin_rewrite()
        self._journal.finish_rewrite(entries)

    def _balances(self) -> Iterator[Entry]:
        """The state in the fewest entries; windows that are over are dropped unless a hold is open in one."""
        now = self._clock()
        current = {window_id(window, now) for window in ("day", "month", "total")}
        held_in = {hold.account for hold in self._open.values()}
        for account, spent in self._spent.items():
            if account[1] in current or account in held_in:
                yield ["spent", *account, spent]
        for hold in self._open.values():
            assert hold.account is not None
            yield ["reserve", hold.id, *hold.account, hold.nusd]


def window_id(window: Window, at_us: int) -> str:
    if window == "total":
        return "total"
    return to_datetime(at_us).strftime("%Y-%m-%d" if window == "day" else "%Y-%m")


def window_end_us(window: Window, at_us: int) -> int | None:
    """When the window containing `at_us` ends (UTC); None for `total`."""
    if window == "total":
        return None
    midnight = to_datetime(at_us).replace(hour=0, minute=0, second=0, microsecond=0)
    end: datetime = midnight + timedelta(days=1)
    if window == "month":
        end = (midnight.replace(day=28) + timedelta(days=4)).replace(day=1)
    return int(end.timestamp()) * US_PER_S
