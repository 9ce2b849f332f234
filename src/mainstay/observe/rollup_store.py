"""The SQL of a day file's roll-ups: one row per hour, app and release, kept in the transaction of what it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mainstay.observe.rollups import HOUR_NS, ChartRow, Group, Tallies, Tally, tally_all, whole_hours
from mainstay.observe.sketch import Sketch
from mainstay.observe.values import INT64_MAX

SCHEMA = (
    "CREATE TABLE roll_ups (hour_ns INTEGER NOT NULL, app TEXT, release INTEGER, requests INTEGER NOT NULL,"
    " errors INTEGER NOT NULL, cost_nusd INTEGER NOT NULL, cost_unknown INTEGER NOT NULL,"
    " input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, guard_hits INTEGER NOT NULL,"
    " grounded INTEGER NOT NULL, grounded_parts INTEGER NOT NULL, durations BLOB NOT NULL, ttfts BLOB NOT NULL)",
    "CREATE INDEX roll_ups_by_hour ON roll_ups (hour_ns, app, release)",
)
SCHEMA_VERSION = 2
"""The first version of a day file's schema that has roll-ups."""

_SUMS = "requests, errors, cost_nusd, cost_unknown, input_tokens, output_tokens, guard_hits, grounded, grounded_parts"
_COLUMNS = f"{_SUMS}, durations, ttfts"
_CHART = (
    "SELECT start_ns, app, release, status = 'error', cost_nusd, input_tokens, output_tokens, duration_ms,"
    " ttft_ms, grounded_share, guard_hits FROM traces"
)


def has_roll_ups(connection: sqlite3.Connection) -> bool:
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) >= SCHEMA_VERSION


def create(connection: sqlite3.Connection) -> None:
    """Make the table, and count the rows that the file already has. Inside the caller's transaction."""
    for statement in SCHEMA:
        connection.execute(statement)
    apply(connection, tally_all(map(ChartRow._make, connection.execute(_CHART))).groups)


def row_of(connection: sqlite3.Connection, trace_id: str) -> ChartRow | None:
    """What the roll-ups count for a trace now; None before its first row."""
    found = connection.execute(f"{_CHART} WHERE trace_id = ?", (trace_id,)).fetchone()
    return None if found is None else ChartRow._make(found)


def apply(connection: sqlite3.Connection, changes: Mapping[Group, Tally]) -> None:
    """Add the changes, some of which may be negative. Inside the transaction that changes the rows counted."""
    for group, change in changes.items():
        found = connection.execute(
            f"SELECT rowid, {_COLUMNS} FROM roll_ups WHERE hour_ns = ? AND app IS ? AND release IS ?",  # noqa: S608
            group,
        ).fetchone()
        if found is not None:
            change.merge(_tally(found[1:]))
            connection.execute("DELETE FROM roll_ups WHERE rowid = ?", found[:1])
        if change.requests:
            connection.execute(
                f"INSERT INTO roll_ups (hour_ns, app, release, {_COLUMNS})"  # noqa: S608 our own names
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*group, *_values(change)),
            )


def read_into(
    tallies: Tallies, connection: sqlite3.Connection, start_ns: int, end_ns: int, bucket_ns: int | None
) -> None:
    """Count a file's traces that started in [start, end): whole hours from roll-ups, the ends from rows.

    `bucket_ns` None: one bucket. Buckets that are no multiple of an hour are counted from rows alone.
    """
    first, last = whole_hours(start_ns, end_ns)
    if bucket_ns is not None and bucket_ns % HOUR_NS:
        first = last = end_ns
    connection.execute("BEGIN")  # one state of the file for all three
    for group, tally in _stored(connection, first, last):
        tallies.merge(group, tally)
    for low, high in ((start_ns, first), (last, end_ns)):
        for row in _rows(connection, low, high):
            tallies.add(row)
    connection.execute("COMMIT")


def _stored(connection: sqlite3.Connection, start_ns: int, end_ns: int) -> Iterator[tuple[Group, Tally]]:
    found = connection.execute(
        f"SELECT hour_ns, app, release, {_COLUMNS} FROM roll_ups WHERE hour_ns >= ? AND hour_ns < ?",  # noqa: S608
        (start_ns, end_ns),
    )
    for hour_ns, app, release, *values in found:
        yield (hour_ns, app, release), _tally(values)


def _rows(connection: sqlite3.Connection, start_ns: int, end_ns: int) -> Iterator[ChartRow]:
    if start_ns < end_ns:
        query = f"{_CHART} WHERE start_ns >= ? AND start_ns < ?"
        yield from map(ChartRow._make, connection.execute(query, (start_ns, end_ns)))


def _tally(values: Sequence[Any]) -> Tally:
    *sums, durations, ttfts = values
    tally = Tally(*sums)
    tally.durations, tally.ttfts = Sketch.unpack(durations), Sketch.unpack(ttfts)
    return tally


def _values(tally: Tally) -> tuple[Any, ...]:
    """As columns. Sums stop at what SQLite can hold, so that no absurd count from outside stops the writing."""
    sums = (
        tally.requests, tally.errors, tally.cost_nusd, tally.cost_unknown, tally.input_tokens,
        tally.output_tokens, tally.guard_hits, tally.grounded, tally.grounded_parts,
    )  # fmt: skip
    held = (max(-INT64_MAX, min(value, INT64_MAX)) for value in sums)
    return (*held, tally.durations.pack(), tally.ttfts.pack())
