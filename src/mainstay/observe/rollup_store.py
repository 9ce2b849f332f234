"""The SQL of a day file's roll-ups: a row per bucket, app and release, changed in the transaction of what it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from mainstay.observe.rollups import WIDTHS_NS, ChartRow, Group, Tallies, Tally, pieces
from mainstay.observe.sketch import Sketch
from mainstay.observe.values import INT64_MAX

SCHEMA = (
    "DROP TABLE IF EXISTS roll_ups",  # version 2 had hours only
    "CREATE TABLE roll_ups (width_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL, app TEXT, release INTEGER, requests INTEGER NOT NULL,"
    " errors INTEGER NOT NULL, cost_nusd INTEGER NOT NULL, cost_unknown INTEGER NOT NULL,"
    " input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, guard_hits INTEGER NOT NULL,"
    " grounded INTEGER NOT NULL, grounded_parts INTEGER NOT NULL, durations BLOB NOT NULL, ttfts BLOB NOT NULL)",
    "CREATE INDEX roll_ups_by_start ON roll_ups (width_ns, start_ns, app, release)",
)
SCHEMA_VERSION = 3
"""The first version of a day file's schema that has these roll-ups."""

_SUMS = "requests, errors, cost_nusd, cost_unknown, input_tokens, output_tokens, guard_hits, grounded, grounded_parts"
_COLUMNS = f"{_SUMS}, durations, ttfts"
_CHART = (
    "SELECT start_ns, app, release, status = 'error', cost_nusd, input_tokens, output_tokens, duration_ms,"
    " ttft_ms, grounded_share, guard_hits FROM traces"
)


class Changes:
    """What a transaction changes in the roll-ups of each width, put together before it is written."""

    def __init__(self) -> None:
        self.by_width = {width: Tallies(width) for width in WIDTHS_NS}

    def add(self, row: ChartRow, times: int = 1) -> None:
        """Count a row; `times` -1 takes out one that was counted."""
        for tallies in self.by_width.values():
            tallies.add(row, times)


def has_roll_ups(connection: sqlite3.Connection) -> bool:
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) >= SCHEMA_VERSION


def create(connection: sqlite3.Connection) -> None:
    """Make the table, and count the rows that the file already has. Inside the caller's transaction."""
    for statement in SCHEMA:
        connection.execute(statement)
    changes = Changes()
    for row in connection.execute(_CHART):
        changes.add(ChartRow._make(row))
    apply(connection, changes)


def row_of(connection: sqlite3.Connection, trace_id: str) -> ChartRow | None:
    """What the roll-ups count for a trace now; None before its first row."""
    found = connection.execute(f"{_CHART} WHERE trace_id = ?", (trace_id,)).fetchone()
    return None if found is None else ChartRow._make(found)


def apply(connection: sqlite3.Connection, changes: Changes) -> None:
    """Write the changes, some of which may be negative. Inside the transaction that changes the rows counted."""
    for width_ns, tallies in changes.by_width.items():
        for group, change in tallies.groups.items():
            _apply(connection, (width_ns, *group), change)


def _apply(
    connection: sqlite3.Connection, bucket: tuple[int, int, str | None, int | None], change: Tally
) -> None:
    found = connection.execute(
        f"SELECT rowid, {_COLUMNS} FROM roll_ups"  # noqa: S608 our own names
        " WHERE width_ns = ? AND start_ns = ? AND app IS ? AND release IS ?",
        bucket,
    ).fetchone()
    if found is not None:
        change.merge(_tally(found[1:]))
        connection.execute("DELETE FROM roll_ups WHERE rowid = ?", found[:1])
    if change.requests:
        connection.execute(
            f"INSERT INTO roll_ups (width_ns, start_ns, app, release, {_COLUMNS})"  # noqa: S608 our own names
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*bucket, *_values(change)),
        )


def read_into(
    tallies: Tallies, connection: sqlite3.Connection, start_ns: int, end_ns: int, bucket_ns: int | None
) -> None:
    """Count a file's traces that started in [start, end), from roll-ups that fit into a bucket, else from rows.

    `bucket_ns` None: one bucket.
    """
    widths = [width for width in WIDTHS_NS if bucket_ns is None or bucket_ns % width == 0]
    connection.execute("BEGIN")  # one state of the file for all pieces
    for piece in pieces(start_ns, end_ns, widths):
        if piece.width_ns is None:
            for row in _rows(connection, piece.start_ns, piece.end_ns):
                tallies.add(row)
        else:
            for group, tally in _stored(connection, piece.width_ns, piece.start_ns, piece.end_ns):
                tallies.merge(group, tally)
    connection.execute("COMMIT")


def _stored(
    connection: sqlite3.Connection, width_ns: int, start_ns: int, end_ns: int
) -> Iterator[tuple[Group, Tally]]:
    found = connection.execute(
        f"SELECT start_ns, app, release, {_COLUMNS} FROM roll_ups"  # noqa: S608 our own names
        " WHERE width_ns = ? AND start_ns >= ? AND start_ns < ?",
        (width_ns, start_ns, end_ns),
    )
    for bucket_ns, app, release, *values in found:
        yield (bucket_ns, app, release), _tally(values)


def _rows(connection: sqlite3.Connection, start_ns: int, end_ns: int) -> Iterator[ChartRow]:
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
