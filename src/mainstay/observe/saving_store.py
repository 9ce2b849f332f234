"""The SQL of what caches saved: a row for each hour of a day's file, changed in the transaction of what it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from mainstay.observe.types import Attr, Span
from mainstay.observe.values import INT64_MAX, whole

HOUR_NS = 3_600_000_000_000

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS savings"
    " (start_ns INTEGER PRIMARY KEY, answers INTEGER NOT NULL, saved_nusd INTEGER NOT NULL)"
)
"""Files from before have no such table, and nothing to put into it."""


@dataclass(frozen=True, slots=True)
class Savings:
    """What `answers` from a cache would have cost when they were made; those of unknown price are not counted."""

    answers: int = 0
    saved_nusd: int = 0

    def __add__(self, other: Savings) -> Savings:
        return Savings(self.answers + other.answers, self.saved_nusd + other.saved_nusd)


def count(spans: Iterable[Span]) -> dict[int, Savings]:
    """By the start of the hour, of spans that say what was saved."""
    found: dict[int, Savings] = {}
    for span in spans:
        saved_nusd = whole(span.attributes.get(Attr.SAVED_NUSD))
        if saved_nusd is not None and saved_nusd > 0:
            hour_ns = span.start_ns // HOUR_NS * HOUR_NS
            found[hour_ns] = found.get(hour_ns, Savings()) + Savings(1, saved_nusd)
    return found


def apply(connection: sqlite3.Connection, hours: dict[int, Savings]) -> None:
    """Add to what is stored; sums stop at what SQLite can hold."""
    for hour_ns, new in hours.items():
        known = read(connection, hour_ns, hour_ns + 1)
        total = known + new
        connection.execute(
            "INSERT OR REPLACE INTO savings VALUES (?, ?, ?)",
            (hour_ns, total.answers, min(total.saved_nusd, INT64_MAX)),
        )


def read(connection: sqlite3.Connection, start_ns: int, end_ns: int) -> Savings:
    """Of the hours that begin in [start, end)."""
    rows = connection.execute(
        "SELECT answers, saved_nusd FROM savings WHERE start_ns >= ? AND start_ns < ?", (start_ns, end_ns)
    )
    return sum((Savings(*row) for row in rows), Savings())


def is_there(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'savings'").fetchone() is not None
