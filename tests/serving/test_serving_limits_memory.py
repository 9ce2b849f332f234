"""The memory limiter: threads, its journal, crashes, and what it forgets."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainstay.core.errors import Conflict
from mainstay.govern.types import Budget, LimitScope
from mainstay.serving.errors import BudgetInFlight, BudgetStoreUnavailable, InsufficientQuota, RateLimited
from mainstay.serving.limits import Hold, Journal, MemoryLimiter, tail
from support.limits import DAY_US, NOV_24_US, SECOND_US, ManualClock, asking, money_of, scope

TOTAL = Budget(10**9, "total")


@pytest.fixture(params=["mapped", "written"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a journal appends to its file: as on most file systems, and as on those that copy on write."""
    if request.param == "written":
        monkeypatch.setattr(tail, "_OVERWRITE_IN_PLACE", frozenset())


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """For this process, the disk is full where a file is that long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_many_threads_together_cannot_overspend() -> None:
    limiter, key = MemoryLimiter(), scope("key", "a", Budget(10_000, "month"), slots=3)
    costs: list[int] = []

    def spend(seed: int) -> None:
        for turn in range(200):
            try:
                hold = asyncio.run(limiter.reserve([key], asking(90, 10)))
            except (InsufficientQuota, BudgetInFlight):
                continue
            cost = min(hold.nusd, (seed * 31 + turn * 7) % 91)
            limiter.settle(hold, cost, None)
            costs.append(cost)

    threads = [threading.Thread(target=spend, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert await money_of(limiter, key) == (sum(costs), 0)
    assert sum(costs) <= 10_000


async def test_the_journal_brings_spend_back_and_counts_open_holds_as_spent(tmp_path: Path) -> None:
    key, team = scope("key", "a", TOTAL), scope("team", "t", Budget(10**9, "month"), Budget(10**9, "week"))
    clock = ManualClock()
    first = MemoryLimiter(Journal(tmp_path / "limits.journal"), clock)
    first.settle(await first.reserve([key, team], asking(300)), 120, None)
    await first.resize(await first.reserve([key], asking(200)), asking(250))
    await first.close()
    for _ in range(2):
        again = MemoryLimiter(Journal(tmp_path / "limits.journal"), clock)
        assert await money_of(again, key) == (370, 0)
        assert [s.spent_nusd for s in await again.states([team])] == [120, 120]
        await again.close()


async def test_windows_that_are_over_are_forgotten(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "limits.journal"
    key = scope("key", "a", Budget(1000, "day"), Budget(9000, "month"))
    first = MemoryLimiter(Journal(path), clock)
    first.settle(await first.reserve([key], asking(300)), 120, None)
    await first.close()
    clock.forward(DAY_US)
    again = MemoryLimiter(Journal(path), clock)
    assert again.balances() == {("key", "key_a", "2026-11"): (120, 0)}
    await again.close()
    assert b"2026-11-24" not in path.read_bytes()


@pytest.mark.parametrize(("cut", "spent_nusd"), [(1, 120), (5, 300), (20, 300)])
async def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int, spent_nusd: int) -> None:
    """Without its settlement, the hold counts in full; only the line's end may be missing."""
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(path))
    limiter.settle(await limiter.reserve([key], asking(300)), 120, None)
    await limiter.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = MemoryLimiter(Journal(path))
    assert await money_of(again, key) == (spent_nusd, 0)
    again.settle(await again.reserve([key], asking(10)), 10, None)
    await again.close()
    last = MemoryLimiter(Journal(path))
    assert await money_of(last, key) == (spent_nusd + 10, 0)
    await last.close()


async def test_a_damaged_line_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(path))
    for _ in range(3):
        limiter.settle(await limiter.reserve([key], asking(100)), 60, None)
    await limiter.close()
    lines = path.read_bytes().split(b"\n")
    first = next(n for n, line in enumerate(lines) if b"settle" in line)
    lines[first] = lines[first].replace(b"60", b"99")  # its hold then counts in full
    path.write_bytes(b"\n".join(lines))
    journal = Journal(path)
    again = MemoryLimiter(journal)
    assert journal.damaged == 1
    assert await money_of(again, key) == (100 + 60 + 60, 0)
    await again.close()


def test_a_second_process_cannot_keep_the_same_budgets(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "limits.journal")
    with pytest.raises(Conflict, match="Another process"):
        Journal(tmp_path / "limits.journal")
    journal.close()


@pytest.mark.usefixtures("form")
async def test_a_large_journal_is_compacted_and_loses_nothing(tmp_path: Path) -> None:
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(path, compact_above_bytes=2_000))
    open_hold, spent = await limiter.reserve([key], asking(7)), 0
    largest = 0
    until = time.monotonic() + 20
    while time.monotonic() < until and path.stat().st_size >= largest:  # it shrinks when it is rewritten
        largest = path.stat().st_size
        limiter.settle(await limiter.reserve([key], asking(10)), 10, None)
        spent += 10
    assert largest > 2_000
    assert path.stat().st_size < largest
    limiter.settle(open_hold, 5, None)
    await limiter.close()
    again = MemoryLimiter(Journal(path))
    assert await money_of(again, key) == (spent + 5, 0)
    await again.close()


async def test_one_write_a_reservation_carries_the_settlements_before_it(tmp_path: Path) -> None:
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(path))
    first = await limiter.reserve([key], asking(10))
    assert b'["hold","%b",10,' % first.id.encode() in path.read_bytes()
    limiter.settle(first, 4, None)
    second = await limiter.reserve([key], asking(10))
    written = path.read_bytes()
    assert written.index(b'["settle","%b",4]' % first.id.encode()) < written.index(
        second.id.encode() + b'",10'
    )
    await limiter.close()


async def test_a_settlement_reaches_the_file_by_itself(tmp_path: Path) -> None:
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(path))
    limiter.settle(await limiter.reserve([key], asking(10)), 4, None)
    until = time.monotonic() + 20
    while b"settle" not in path.read_bytes() and time.monotonic() < until:
        await asyncio.sleep(0.001)
    assert b"settle" in path.read_bytes()
    await limiter.close()


async def reserve_until_refused(limiter: MemoryLimiter, key: LimitScope, holds: list[Hold]) -> None:
    for _ in range(1000):  # what was allocated ahead is used up first
        holds.append(await limiter.reserve([key], asking(100)))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("room", [0, 10])
async def test_a_full_disk_refuses_and_holds_nothing(tmp_path: Path, room: int) -> None:
    path, key = tmp_path / "limits.journal", scope("key", "a", TOTAL, rpm=1000)
    limiter = MemoryLimiter(Journal(path), ManualClock())
    holds = [await limiter.reserve([key], asking(100))]
    with no_file_larger_than(path.stat().st_size + room):
        with pytest.raises(BudgetStoreUnavailable) as caught:
            await reserve_until_refused(limiter, key, holds)
        for hold in holds:
            limiter.settle(hold, 30, None)
    assert caught.value.status == 503
    assert await money_of(limiter, key) == (30 * len(holds), 0)
    after = await limiter.reserve([key], asking(1))
    assert after.rate is not None
    assert after.rate.remaining == 1000 - len(holds) - 1
    limiter.settle(after, 1, None)
    await limiter.close()
    again = MemoryLimiter(Journal(path), ManualClock())
    assert await money_of(again, key) == (30 * len(holds) + 1, 0)
    await again.close()


def test_a_disk_too_full_to_allocate_ahead_is_written_to(tmp_path: Path) -> None:
    with no_file_larger_than(1000):  # less than a page
        journal = Journal(tmp_path / "limits.journal")
        journal.append(b'["spent","key_a","total",5]')
        with pytest.raises(BudgetStoreUnavailable):
            journal.append(b'["spent","key_a","total",%b]' % (b"6" * 1000))
    journal.append(b'["spent","key_a","total",7]')
    journal.close()
    again = Journal(tmp_path / "limits.journal")
    assert again.entries() == [["spent", "key_a", "total", 5], ["spent", "key_a", "total", 7]]
    again.close()


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("torn", [b"", b'0badc0de ["rese'])
def test_what_was_allocated_ahead_of_a_kill_is_no_content(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "limits.journal"
    path.write_bytes(line(1) + torn + bytes(9000))
    journal = Journal(path)
    journal.append(b"[2]")
    journal.close()
    assert b"\0" not in path.read_bytes()
    again = Journal(path)
    assert again.entries() == [[1], [2]]
    again.close()


@pytest.mark.usefixtures("form")
def test_a_journal_grows_beyond_what_was_allocated_ahead(tmp_path: Path) -> None:
    journal, text = Journal(tmp_path / "limits.journal"), "x" * 7000
    for number in range(400):
        journal.append(json.dumps([number, text]).encode())
    journal.close()
    again = Journal(tmp_path / "limits.journal")
    assert again.entries() == [[number, text] for number in range(400)]
    again.close()


@pytest.mark.usefixtures("form")
async def test_settling_when_all_is_closed_raises_nothing(tmp_path: Path) -> None:
    key = scope("key", "a", TOTAL)
    limiter = MemoryLimiter(Journal(tmp_path / "limits.journal"))
    hold = await limiter.reserve([key], asking(100))
    await limiter.close()
    limiter.settle(hold, 30, None)
    with pytest.raises(BudgetStoreUnavailable):
        await limiter.reserve([key], asking(100))
    assert await money_of(limiter, key) == (30, 0)


def line(*entry: object) -> bytes:
    body = json.dumps(entry).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


async def test_a_journal_of_the_format_before_scopes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "limits.journal"
    entries = [
        line("spent", "key_a", "total", 500),
        line("reserve", "hold_1", "key_a", "total", 100),
        line("resize", "hold_1", 120),
        line("reserve", "hold_2", "key_a", "2026-11", 70),
        line("settle", "hold_2", 30),
        line("sung", "key_a", "of a later format"),
    ]
    path.write_bytes(b"".join(entries))
    limiter = MemoryLimiter(Journal(path), ManualClock())
    key = scope("key", "a", TOTAL, Budget(10**9, "month"))
    assert [s.spent_nusd for s in await limiter.states([key])] == [620, 30]
    await limiter.close()


async def test_a_hold_that_nobody_settles_is_settled_in_full() -> None:
    clock, key = ManualClock(), scope("key", "a", TOTAL)
    limiter = MemoryLimiter(clock=clock, hold_max_s=60)
    left: Hold = await limiter.reserve([key], asking(50))
    clock.forward(61_000_000)
    other = scope("key", "b", slots=2)
    for _ in range(5000):
        limiter.settle(await limiter.reserve([other], asking()), None, None)
    assert await money_of(limiter, key) == (50, 0)
    limiter.settle(left, 10, None)
    assert await money_of(limiter, key) == (50, 0)


async def test_idle_scopes_are_forgotten_but_not_what_they_spent() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(clock=clock, limit_scopes=100)
    for number in range(5000):
        key = scope("key", str(number), Budget(100, "day"), rpm=10)
        limiter.settle(await limiter.reserve([key], asking(5)), 5, None)
        clock.forward(1_000_000)
    assert len(limiter._scopes) < 2000
    assert await money_of(limiter, scope("key", "0", Budget(100, "day"))) == (5, 0)


async def test_callers_who_share_a_scope_are_counted_by_its_limits_of_that_moment() -> None:
    """A caller whose scopes were found before another's changed the limits of one of them."""
    clock = ManualClock()
    limiter = MemoryLimiter(clock=clock)
    old, new = scope("team", "t", rpm=10), scope("team", "t", Budget(1000, "day"), rpm=3, slots=9)
    here, there = scope("key", "a", rpm=100), scope("key", "b", rpm=100)
    for caller in ([here, old], [there, old], [here, new]):
        await limiter.reserve(caller, asking(400))
    with pytest.raises(RateLimited):
        await limiter.reserve([here, new], asking(400))
    later = await limiter.reserve([there, old], asking(400))  # of a request that began before the change
    assert later.rate is not None
    assert (later.rate.limit, later.rate.remaining) == (10, 6)
    clock.forward(120 * SECOND_US)
    await limiter.reserve([here, new], asking(400))
    await limiter.reserve([there, new], asking(200))
    with pytest.raises(BudgetInFlight):
        await limiter.reserve([here, new], asking(400))
    limiter.settle(await limiter.reserve([there, scope("team", "t")], asking(400)), 400, None)
    assert await money_of(limiter, new) == (0, 1000)


async def test_no_limits_at_all_cost_no_memory() -> None:
    limiter = MemoryLimiter()
    for number in range(100):
        limiter.settle(await limiter.reserve([scope("user", str(number))], asking(5)), 5, None)
    assert (len(limiter._scopes), len(limiter._open)) == (0, 0)


KILLED = """
import asyncio, os, signal
from pathlib import Path
from support.limits import asking, scope
from mainstay.govern.types import Budget
from mainstay.serving.limits import Journal, MemoryLimiter

async def main():
    limiter = MemoryLimiter(Journal(Path({path!r})))
    scopes = [scope("key", "a", Budget(10**9, "total")), scope("team", "t", Budget(10**9, "total"))]
    for turn in range(3):
        limiter.settle(await limiter.reserve(scopes, asking(100)), 60, None)
    await limiter.reserve(scopes, asking(1000))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_killed_process_loses_no_spend(tmp_path: Path) -> None:
    path = tmp_path / "limits.journal"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    program = KILLED.format(path=str(path))
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    assert done.returncode == -9
    limiter = MemoryLimiter(Journal(path))
    for each in (scope("key", "a", TOTAL), scope("team", "t", TOTAL)):
        assert await money_of(limiter, each) == (3 * 60 + 1000, 0)
    await limiter.close()


@pytest.mark.usefixtures("form")
def test_what_is_appended_behind_a_torn_line_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "limits.journal"
    path.write_bytes(b'0badc0de ["rese')
    journal = Journal(path)
    journal.append(b'["spent","key_a","total",5]')
    journal.close()
    again = Journal(path)
    assert again.entries() == [["spent", "key_a", "total", 5]]
    again.close()


def test_week_windows_are_of_the_iso_calendar() -> None:
    from mainstay.serving.limits import window_at

    week = window_at("week", NOV_24_US)
    assert (week.id, week.from_us, week.until_us) == ("2026-W48", NOV_24_US - DAY_US, NOV_24_US + 6 * DAY_US)
    january = window_at("week", 1_798_761_600_000_000)  # 2027-01-01, a Friday
    assert january.id == "2026-W53"
