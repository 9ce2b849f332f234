"""Budgets: holds, refusals, journal and crashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.core.errors import Conflict
from mainstay.govern.types import ApiKey, Budget, Limits
from mainstay.serving.errors import BudgetInFlight, InsufficientQuota, RateLimited, RequestExceedsBudget
from mainstay.serving.journal import Journal
from mainstay.serving.ledger import Hold, Ledger
from mainstay.serving.rates import RateLimiter

DAY_US = 86_400_000_000
NOV_24_US = 1_795_478_400_000_000  # 2026-11-24T00:00:00Z


def api_key(
    budget_nusd: int | None = 1000, window: str = "month", rpm: int | None = None, id: str = "key_a"
) -> ApiKey:
    budgets = () if budget_nusd is None else (Budget(budget_nusd, window),)  # type: ignore[arg-type]
    limits = Limits(requests_per_minute=rpm, budgets=budgets)
    return ApiKey(id, "a", "ms-a", "hash", "developer", None, frozenset(), limits, 0, None, None)


def state(ledger: Ledger, key: ApiKey) -> tuple[int, int]:
    found = ledger.state(key)
    assert found is not None
    return found.spent_nusd, found.held_nusd


def test_a_hold_becomes_spend_once() -> None:
    ledger, key = Ledger(), api_key()
    hold = ledger.reserve(key, 600, 100)
    assert state(ledger, key) == (0, 600)
    assert ledger.settle(hold, 250)
    assert not ledger.settle(hold, 250)
    assert state(ledger, key) == (250, 0)


def test_a_call_that_wants_more_than_is_left_gets_what_is_left() -> None:
    ledger, key = Ledger(), api_key()
    ledger.settle(ledger.reserve(key, 900, 1), 900)
    assert ledger.reserve(key, 600, 50).nusd == 100


def test_a_spent_budget_is_refused_without_a_retry() -> None:
    ledger, key = Ledger(), api_key()
    ledger.settle(ledger.reserve(key, 990, 1), 990)
    with pytest.raises(InsufficientQuota) as caught:
        ledger.reserve(key, 100, 50)
    assert caught.value.detail["settled_nusd"] == 990
    assert caught.value.retry_after_s is None


def test_a_budget_that_is_only_held_says_when_to_try_again() -> None:
    ledger, key = Ledger(), api_key()
    ledger.reserve(key, 990, 1)
    with pytest.raises(BudgetInFlight) as caught:
        ledger.reserve(key, 100, 50)
    assert caught.value.retry_after_s is not None


def test_a_request_dearer_than_the_whole_budget_is_the_callers_mistake() -> None:
    with pytest.raises(RequestExceedsBudget):
        Ledger().reserve(api_key(), 5000, 1001)


def test_a_free_model_answers_on_a_spent_budget() -> None:
    ledger, key = Ledger(), api_key()
    ledger.settle(ledger.reserve(key, 1000, 1), 1000)
    assert ledger.reserve(key, 0, 0).nusd == 0


def test_an_unknown_cost_settles_at_the_whole_hold() -> None:
    ledger, key = Ledger(), api_key()
    ledger.settle(ledger.reserve(key, 400, 1), None)
    assert state(ledger, key) == (400, 0)


def test_a_hold_can_grow_and_shrink_before_the_call() -> None:
    ledger, key = Ledger(), api_key()
    hold = ledger.resize(key, ledger.reserve(key, 100, 10), 700, 10)
    assert state(ledger, key) == (0, 700)
    hold = ledger.resize(key, hold, 50, 10)
    ledger.settle(hold, 30)
    assert state(ledger, key) == (30, 0)


def test_a_refused_growth_leaves_the_hold_to_be_settled() -> None:
    ledger, key = Ledger(), api_key()
    hold = ledger.reserve(key, 100, 10)
    with pytest.raises(RequestExceedsBudget):
        ledger.resize(key, hold, 5000, 2000)
    ledger.settle(hold, 0)
    assert state(ledger, key) == (0, 0)


@pytest.mark.parametrize(("window", "later_us"), [("day", DAY_US), ("month", 7 * DAY_US)])
def test_a_new_window_starts_at_zero(window: str, later_us: int) -> None:
    now = [NOV_24_US]
    ledger, key = Ledger(clock=lambda: now[0]), api_key(window=window)
    ledger.settle(ledger.reserve(key, 1000, 1), 1000)
    before = ledger.state(key)
    now[0] += later_us
    assert before is not None
    assert before.resets_at_us == NOV_24_US + later_us
    assert state(ledger, key) == (0, 0)


def test_a_total_budget_never_starts_anew() -> None:
    now = [NOV_24_US]
    ledger, key = Ledger(clock=lambda: now[0]), api_key(window="total")
    ledger.settle(ledger.reserve(key, 1000, 1), 1000)
    now[0] += 400 * DAY_US
    assert state(ledger, key) == (1000, 0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "resize"]), st.integers(0, 700), st.floats(0, 1)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_spend_and_holds_never_pass_the_limit(steps: list[tuple[str, int, float]]) -> None:
    ledger, key = Ledger(), api_key()
    held: list[Hold] = []
    settled = 0
    for step, amount, part in steps:
        try:
            if step == "reserve":
                held.append(ledger.reserve(key, amount, int(amount * part)))
            elif held and step == "resize":
                held.append(ledger.resize(key, held.pop(0), amount, int(amount * part)))
            elif held:
                hold = held.pop(0)
                cost = int(hold.nusd * part)
                assert ledger.settle(hold, cost)
                assert not ledger.settle(hold, cost)
                settled += cost
        except (InsufficientQuota, BudgetInFlight, RequestExceedsBudget):
            if step == "resize":
                held = list(ledger._open.values())
        spent, on_hold = state(ledger, key)
        assert spent == settled
        assert on_hold == sum(h.nusd for h in held)
        assert 0 <= spent + on_hold <= 1000


def test_many_threads_together_cannot_overspend() -> None:
    ledger, key = Ledger(), api_key(budget_nusd=10_000)
    costs: list[int] = []

    def spend(seed: int) -> None:
        for turn in range(200):
            try:
                hold = ledger.reserve(key, 90, 10)
            except (InsufficientQuota, BudgetInFlight):
                continue
            cost = min(hold.nusd, (seed * 31 + turn * 7) % 91)
            ledger.settle(hold, cost)
            costs.append(cost)

    threads = [threading.Thread(target=spend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(ledger, key) == (sum(costs), 0)
    assert sum(costs) <= 10_000


def test_the_journal_brings_spend_back_and_counts_open_holds_as_spent(tmp_path: Path) -> None:
    key = api_key()
    first = Ledger(Journal(tmp_path / "ledger.journal"))
    first.settle(first.reserve(key, 300, 1), 120)
    first.resize(key, first.reserve(key, 200, 1), 250, 1)
    first.close()
    second = Ledger(Journal(tmp_path / "ledger.journal"))
    assert state(second, key) == (370, 0)
    second.close()
    third = Ledger(Journal(tmp_path / "ledger.journal"))
    assert state(third, key) == (370, 0)
    third.close()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path, key = tmp_path / "ledger.journal", api_key()
    ledger = Ledger(Journal(path))
    ledger.settle(ledger.reserve(key, 300, 1), 120)
    ledger.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = Ledger(Journal(path))
    spent, held = state(again, key)
    assert (spent, held) in ((300, 0), (120, 0))  # without its settlement, the hold counts in full
    again.settle(again.reserve(key, 10, 1), 10)
    again.close()
    last = Ledger(Journal(path))
    assert state(last, key) == (spent + 10, 0)
    last.close()


def test_a_damaged_line_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path, key = tmp_path / "ledger.journal", api_key()
    ledger = Ledger(Journal(path))
    for _ in range(3):
        ledger.settle(ledger.reserve(key, 100, 1), 100)
    ledger.close()
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"100", b"999")  # a settlement; its hold then counts in full
    path.write_bytes(b"\n".join(lines))
    journal = Journal(path)
    again = Ledger(journal)
    assert journal.damaged == 1
    assert state(again, key) == (300, 0)
    again.close()


def test_a_second_process_cannot_keep_the_same_budgets(tmp_path: Path) -> None:
    ledger = Ledger(Journal(tmp_path / "ledger.journal"))
    with pytest.raises(Conflict, match="Another process"):
        Journal(tmp_path / "ledger.journal")
    ledger.close()


def test_a_large_journal_is_compacted_and_loses_nothing(tmp_path: Path) -> None:
    path, key = tmp_path / "ledger.journal", api_key(budget_nusd=10**9)
    ledger = Ledger(Journal(path, compact_above_bytes=2_000))
    open_hold, spent = ledger.reserve(key, 7, 1), 0
    largest = 0
    until = time.monotonic() + 20
    while time.monotonic() < until and path.stat().st_size >= largest:  # it shrinks when it is rewritten
        largest = path.stat().st_size
        ledger.settle(ledger.reserve(key, 10, 1), 10)
        spent += 10
    assert largest > 2_000
    ledger.settle(open_hold, 5)
    ledger.close()
    again = Ledger(Journal(path))
    assert state(again, key) == (spent + 5, 0)
    again.close()


KILLED = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from serving_plane import api_key, build_plane
from mainstay.core.clock import now_us
from mainstay.govern import identity_of
from mainstay.models.types import ChatCall, ChatMessage
from mainstay.serving import Call, ChatRequest, Journal, Ledger, ask

plane, key = build_plane(), api_key(budget_nusd=10**9, budget_window="total")
deps = replace(plane.deps, ledger=Ledger(Journal(Path({path!r}))))
plane.model.says("Hello.")
call = Call(ChatRequest("acme/small", ChatCall("", (ChatMessage("user", "Hi"),), max_tokens=20)), identity_of(key), key)
for turn in range(3):
    asyncio.run(ask(call, deps))
"""
HOLD_NUSD = 20 * 400 + (2 + 16 + 16) * 100  # 20 output tokens, and the ceiling of the input
COST_NUSD = 5 * 400 + 10 * 100


@pytest.mark.parametrize("fault", ["serving.after_reserve", "serving.before_settle"])
@pytest.mark.parametrize("visit", [1, 2])
def test_a_killed_process_loses_no_spend(tmp_path: Path, fault: str, visit: int) -> None:
    path = tmp_path / "ledger.journal"
    program = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    environment = {**os.environ, "MAINSTAY_FAULT": f"{fault}=kill@{visit}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    assert done.returncode == -9
    ledger = Ledger(Journal(path))
    key = api_key(budget_nusd=10**9, window="total", id="key_ms-good")
    assert state(ledger, key) == ((visit - 1) * COST_NUSD + HOLD_NUSD, 0)
    ledger.close()


def test_journal_lines_are_checksummed_json(tmp_path: Path) -> None:
    path = tmp_path / "ledger.journal"
    ledger = Ledger(Journal(path))
    ledger.reserve(api_key(), 5, 1)
    ledger.close()
    checksum, _, body = path.read_text().strip().partition(" ")
    assert len(checksum) == 8
    assert json.loads(body)[0] == "reserve"


def test_a_key_may_send_its_requests_per_minute_and_then_waits() -> None:
    now = [NOV_24_US]
    rates, key = RateLimiter(lambda: now[0]), api_key(rpm=3)
    left = [rates.take(key).remaining for _ in range(3)]  # type: ignore[union-attr]
    with pytest.raises(RateLimited) as caught:
        rates.take(key)
    assert left == [2, 1, 0]
    assert caught.value.retry_after_s == 20
    now[0] += 20_000_000
    assert rates.take(key) is not None


def test_a_clock_set_back_locks_nobody_out_for_more_than_a_minute() -> None:
    now = [NOV_24_US]
    rates, key = RateLimiter(lambda: now[0]), api_key(rpm=1)
    rates.take(key)
    now[0] -= DAY_US
    with pytest.raises(RateLimited):
        rates.take(key)
    now[0] += 60_000_000
    assert rates.take(key) is not None


def test_a_key_without_a_limit_is_not_counted() -> None:
    assert RateLimiter().take(api_key(rpm=None)) is None


def test_a_rate_above_one_a_microsecond_still_counts() -> None:
    rates = RateLimiter(lambda: 1_000_000)
    state = rates.take(api_key(rpm=10**9))
    assert state is not None
    assert state.remaining == 10**9 - 1


def test_what_is_appended_behind_a_torn_line_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.journal"
    path.write_bytes(b'0badc0de ["rese')
    journal = Journal(path)
    journal.append(["spent", "key_a", "total", 5])
    journal.close()
    again = Journal(path)
    assert again.entries() == [["spent", "key_a", "total", 5]]
    again.close()
