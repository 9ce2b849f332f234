"""The trace store: one SQLite file a day, an index that knows which file holds a trace.

A trace lives whole in the file of the day on which its first known span started, wherever its later spans
fall. Order of writes: the index decides the day (committed), then the day's file takes the spans; spans that
come again after a crash find the same file, where (trace, span) makes them one. Retention deletes files.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from mainstay.core.clock import Clock, now_us, to_datetime
from mainstay.core.errors import NotFound
from mainstay.core.faults import fault
from mainstay.observe import day_store, index_store, rollup_store, saving_store
from mainstay.observe.day_store import DayWriter
from mainstay.observe.index_store import IndexWriter
from mainstay.observe.pool import ReaderPool, has_schema
from mainstay.observe.rollups import Tallies
from mainstay.observe.saving_store import Savings
from mainstay.observe.types import RollUp, Span, TraceFilter, TraceRow

NS_PER_S = 1_000_000_000
WRITERS_MAX = 4
PAGE_MAX = 1_000

T = TypeVar("T")

# Inside the class, `list` is its own method.
Names = list[str]
Rows = list[TraceRow]
Spans = list[Span]
RollUps = list[RollUp]


class TraceStore:
    """Reads and writes traces under `folder` (`data_dir/observe`). Thread-safe; other processes may read.

    One process writes at a time (Drain sees to it). Nothing is created before the first write.
    """

    def __init__(self, folder: Path, clock: Clock = now_us) -> None:
        self._days = folder / "days"
        self._index_path = folder / "index.db"
        self._clock = clock
        self._lock = threading.Lock()  # one writer: guards the two below
        self._index: IndexWriter | None = None
        self._writers: dict[str, DayWriter] = {}
        self._readers = ReaderPool()

    # Writing

    def ingest(self, spans: Iterable[Span]) -> int:
        """Store spans; those already stored are left as they are. Returns how many were new. Durable on return."""
        traces: dict[str, list[Span]] = {}
        for span in spans:
            traces.setdefault(span.trace_id, []).append(span)
        if not traces:
            return 0
        with self._lock:
            index = self._open_index()
            wanted = {t: self._day_for(min(s.start_ns for s in group)) for t, group in traces.items()}
            by_day: dict[str, dict[str, list[Span]]] = {}
            for trace_id, day in index.route(wanted).items():
                by_day.setdefault(day, {})[trace_id] = traces[trace_id]
            fault("observe.mid_ingest")
            return sum(self._add(index, day, group) for day, group in by_day.items())

    def prune(self, older_than_ns: int) -> tuple[str, ...]:
        """Delete whole days that ended before then; returns them (`YYYY-MM-DD`)."""
        with self._lock:
            index = self._open_index()
            gone = tuple(day for day in self.days() if _day_end_ns(day) <= older_than_ns)
            for day in gone:
                self._delete_day(day)
                index.forget_day(day)
        return gone

    def close(self) -> None:
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()
            if self._index is not None:
                self._index.close()
                self._index = None
        self._readers.close()

    # Reading

    def list(
        self, wanted: TraceFilter | None = None, before: str | None = None, limit: int = 50
    ) -> list[TraceRow]:
        """A page of traces, newest first. `before` is the trace id of the last row of the page before.

        Raises NotFound when that trace is gone.
        """
        wanted = wanted or TraceFilter()
        limit = min(limit, PAGE_MAX)
        day, cursor = (None, None) if before is None else self._cursor(before)
        rows: list[TraceRow] = []
        for each in self._days_between(wanted.start_ns_min, wanted.start_ns_max):
            if len(rows) == limit:
                break
            if day is None or each <= day:
                after = cursor if each == day else None
                rows += self._page(each, wanted, after, limit - len(rows))
        return rows

    def row(self, trace_id: str) -> TraceRow:
        """One trace's list row. Raises NotFound."""
        day, start_ns = self._find(trace_id)
        wanted = TraceFilter(start_ns_min=start_ns, start_ns_max=start_ns)
        return next(row for row in self._page(day, wanted, None, PAGE_MAX) if row.trace_id == trace_id)

    def get(self, trace_id: str) -> Spans:
        """All spans of a trace as they came, by start time. Raises NotFound."""
        day, _ = self._find(trace_id)
        spans = self._read(self._path(day), lambda c: day_store.spans_of(c, trace_id))
        if not spans:
            raise _no_trace(trace_id)
        return spans

    def roll_ups(
        self, start_ns: int, end_ns: int, bucket_s: int | None = 3600, by_release: bool = True
    ) -> RollUps:
        """Buckets of `bucket_s` seconds for traces that started in [start_ns, end_ns), oldest first.

        A bucket starts at a multiple of its width; with `bucket_s` None the whole time is one that starts at
        `start_ns`. Counts and sums are exact, percentiles within 1 %. What is stored is read by the hour and,
        where the time is no whole hour or the width is less, by five minutes; rows are read for the rest.
        """
        bucket_ns = None if bucket_s is None else bucket_s * NS_PER_S
        tallies = Tallies(bucket_ns or 1, by_release, start_ns if bucket_ns is None else None)
        for day in self._days_between(start_ns, end_ns):
            path = self._path(day)
            if self._read(path, rollup_store.has_roll_ups) is False:
                self._bring_up(day)
            self._read(path, lambda c: rollup_store.read_into(tallies, c, start_ns, end_ns, bucket_ns))
        return tallies.roll_ups()

    def savings(self, start_ns: int, end_ns: int) -> Savings:
        """What answers from caches saved, in whole hours that begin in [start_ns, end_ns)."""
        total = Savings()
        for day in self._days_between(start_ns, end_ns):
            found = self._read(
                self._path(day),
                lambda c: saving_store.read(c, start_ns, end_ns) if saving_store.is_there(c) else None,
            )
            total += found or Savings()
        return total

    def apps(self) -> Names:
        """Apps that have traces, by name."""
        return self._read(self._index_path, index_store.known_apps) or []

    def days(self) -> Names:
        """Days that have a file, newest first."""
        return sorted((path.stem for path in self._days.glob("????-??-??.db")), reverse=True)

    # Inside

    def _add(self, index: IndexWriter, day: str, traces: dict[str, Spans]) -> int:
        rows, count = self._writer(day).add(traces)
        index.note_apps(day, sorted({row.app for row in rows if row.app is not None}))
        return count

    def _writer(self, day: str) -> DayWriter:
        writer = self._writers.pop(day, None)
        if writer is None:
            if len(self._writers) >= WRITERS_MAX:
                self._writers.pop(next(iter(self._writers))).close()
            writer = DayWriter(self._path(day))
        self._writers[day] = writer  # last: least recently used is first
        return writer

    def _bring_up(self, day: str) -> None:
        """Count a file that was written before there were roll-ups; opening it for writing does."""
        with self._lock:
            if day not in self._writers and self._path(day).exists():
                DayWriter(self._path(day)).close()

    def _open_index(self) -> IndexWriter:
        if self._index is None:
            self._days.mkdir(parents=True, exist_ok=True)
            lost = not self._index_path.exists()
            self._index = IndexWriter(self._index_path)
            if lost:
                self._rebuild(self._index)
        return self._index

    def _rebuild(self, index: IndexWriter) -> None:
        """The index is derived: made again from the days' files when it is gone."""
        for day in self.days():
            found = self._read(self._path(day), day_store.traces_in) or []
            index.route({trace_id: day for trace_id, _ in found})
            index.note_apps(day, sorted({app for _, app in found if app is not None}))

    def _delete_day(self, day: str) -> None:
        writer = self._writers.pop(day, None)
        if writer is not None:
            writer.close()
        path = self._path(day)
        self._readers.discard(path)
        for suffix in ("-wal", "-shm", ""):  # the main file last: a lone -wal must never meet a new file
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def _day_for(self, start_ns: int) -> str:
        """The UTC day of a time; times further ahead than clocks differ count as today."""
        today = to_datetime(self._clock()).date()
        day = datetime.fromtimestamp(start_ns // NS_PER_S, tz=UTC).date()
        return (day if day <= today + timedelta(days=1) else today).isoformat()

    def _days_between(self, start_ns: int | None, end_ns: int | None) -> Iterator[str]:
        """Days that may hold traces that started in that time, newest first.

        One day more at the end: a trace that got an earlier start later stays where it is.
        """
        first = "" if start_ns is None else _date(start_ns).isoformat()
        last = "9" if end_ns is None else (_date(end_ns) + timedelta(days=1)).isoformat()
        today = to_datetime(self._clock()).date().isoformat()
        return (day for day in self.days() if (first <= day or day == today) and day <= last)

    def _read(self, path: Path, query: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run a query on a file; None when it is not there or its writer has not finished making it."""
        try:
            with self._readers.borrow(path) as connection:
                return query(connection) if has_schema(connection) else None
        except sqlite3.OperationalError:
            if path.exists():
                raise
            return None

    def _page(self, day: str, wanted: TraceFilter, before: tuple[int, str] | None, limit: int) -> Rows:
        return self._read(self._path(day), lambda c: day_store.list_rows(c, wanted, before, limit)) or []

    def _cursor(self, trace_id: str) -> tuple[str, tuple[int, str]]:
        day, start_ns = self._find(trace_id)
        return day, (start_ns, trace_id)

    def _find(self, trace_id: str) -> tuple[str, int]:
        """The day's file that holds a trace, and the trace's start."""
        day = self._read(self._index_path, lambda c: index_store.day_of(c, trace_id))
        start_ns = (
            None if day is None else self._read(self._path(day), lambda c: day_store.start_of(c, trace_id))
        )
        if day is None or start_ns is None:
            raise _no_trace(trace_id)
        return day, start_ns

    def _path(self, day: str) -> Path:
        return self._days / f"{day}.db"


def _date(at_ns: int) -> date:
    return datetime.fromtimestamp(at_ns // NS_PER_S, tz=UTC).date()


def _day_end_ns(day: str) -> int:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return int((start + timedelta(days=1)).timestamp()) * NS_PER_S


def _no_trace(trace_id: str) -> NotFound:
    return NotFound(
        f"No trace {trace_id} is stored.", fix="It may be past its retention, or not have arrived yet."
    )
