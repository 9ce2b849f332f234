"""The SQL of one day's file: spans, bodies, trace rows and full-text index.

`user_version` says which schema a file has. Version 2 added the roll-ups, version 3 those of five minutes: a file
from before gets them when it is next opened for writing, or when a chart first needs them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from mainstay.observe import rollup_store, saving_store
from mainstay.observe.codec import decode_spans, encode_spans
from mainstay.observe.derive import SpanFacts, facts_of, search_text, trace_row
from mainstay.observe.pool import has_schema, immediate, open_writer
from mainstay.observe.rollups import chart_row
from mainstay.observe.types import Span, TraceFilter, TraceRow

SCHEMA_VERSION = rollup_store.SCHEMA_VERSION
ZSTD_LEVEL = 3
BODY_BYTES_MAX = 1 << 30

_COLUMNS = tuple(field.name for field in fields(TraceRow))
_TYPES = {"trace_id": "TEXT PRIMARY KEY", "start_ns": "INTEGER NOT NULL"}

_SCHEMA = f"""
CREATE TABLE spans (trace_id TEXT, span_id TEXT, facts BLOB NOT NULL, PRIMARY KEY (trace_id, span_id)) WITHOUT ROWID;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, spans BLOB NOT NULL);
CREATE INDEX bodies_by_trace ON bodies (trace_id);
CREATE TABLE traces ({", ".join(f'"{name}" {_TYPES.get(name, "")}' for name in _COLUMNS)}) WITHOUT ROWID;
CREATE INDEX traces_by_start ON traces (start_ns, trace_id);
CREATE INDEX traces_by_app ON traces (app, start_ns, trace_id);
CREATE VIRTUAL TABLE texts USING fts5 (text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2');
"""
_SELECT = f"SELECT {', '.join(f'traces.{name}' for name in _COLUMNS)} FROM traces"  # noqa: S608 our own names
_UPSERT = f"INSERT OR REPLACE INTO traces VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608

_CONDITIONS: Mapping[str, str] = {
    "app": "app = ?",
    "release": "release = ?",
    "model": "model = ?",
    "status": "status = ?",
    "user": "user = ?",
    "environment": "environment = ?",
    "conversation": "conversation = ?",
    "cost_nusd_min": "cost_nusd >= ?",
    "duration_ms_min": "duration_ms >= ?",
    "guarded": "(guard_hits > 0) = ?",
    "start_ns_min": "start_ns >= ?",
    "start_ns_max": "start_ns <= ?",
    "text": "trace_id IN (SELECT trace_id FROM bodies WHERE id IN (SELECT rowid FROM texts WHERE texts MATCH ?))",
}

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(SpanFacts).decode


class DayWriter:
    """The writing side of one file. Not thread-safe: the store that owns it holds a lock."""

    def __init__(self, path: Path) -> None:
        self._connection = open_writer(path)
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        if not rollup_store.has_roll_ups(self._connection):
            with immediate(self._connection):
                self._bring_up()
        self._connection.execute(saving_store.SCHEMA)

    def add(self, traces: Mapping[str, Sequence[Span]]) -> tuple[list[TraceRow], int]:
        """Store the spans that are new, in one transaction. Returns changed trace rows, and the new spans' number."""
        counts = rollup_store.Changes()
        with immediate(self._connection):
            changed = [self._add_trace(trace_id, spans, counts) for trace_id, spans in traces.items()]
            rollup_store.apply(self._connection, counts)
        rows = [row for row, _ in changed if row is not None]
        return rows, sum(count for _, count in changed)

    def close(self) -> None:
        self._connection.close()

    def _bring_up(self) -> None:
        """Make what the file lacks. Another process may have done it while this one waited for the lock."""
        for statement in () if has_schema(self._connection) else _SCHEMA.split(";\n"):
            self._connection.execute(statement)
        if not rollup_store.has_roll_ups(self._connection):
            rollup_store.create(self._connection)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _add_trace(
        self, trace_id: str, spans: Sequence[Span], counts: rollup_store.Changes
    ) -> tuple[TraceRow | None, int]:
        known = self._known(trace_id)
        new = {span.span_id: span for span in reversed(spans) if span.span_id not in known}
        if not new:
            return None, 0
        facts: list[SpanFacts] = []
        texts: list[str] = []
        for span in new.values():
            fact, said = facts_of(span)
            facts.append(fact)
            texts += said
        self._connection.executemany(
            "INSERT INTO spans VALUES (?, ?, ?)", [(trace_id, fact.span_id, _pack(fact)) for fact in facts]
        )
        body = self._compressor.compress(encode_spans(list(new.values())))
        cursor = self._connection.execute(
            "INSERT INTO bodies (trace_id, spans) VALUES (?, ?)", (trace_id, body)
        )
        if texts:
            entry = (cursor.lastrowid, search_text(reversed(texts)))
            self._connection.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", entry)
        saving_store.apply(self._connection, saving_store.count(new.values()))
        row = trace_row(trace_id, [*known.values(), *facts])
        counted = rollup_store.row_of(self._connection, trace_id) if known else None
        if counted is not None:  # late spans: the row is counted once, as it is now
            counts.add(counted, -1)
        counts.add(chart_row(row))
        self._connection.execute(_UPSERT, astuple(row))
        return row, len(new)

    def _known(self, trace_id: str) -> dict[str, SpanFacts]:
        found = self._connection.execute("SELECT facts FROM spans WHERE trace_id = ?", (trace_id,))
        return {fact.span_id: fact for fact in (_unpack(facts) for (facts,) in found)}


def list_rows(
    connection: sqlite3.Connection, wanted: TraceFilter, before: tuple[int, str] | None, limit: int
) -> list[TraceRow]:
    """Rows that pass the filter, newest first, after the (start_ns, trace_id) of the last row seen."""
    conditions, values = where(wanted)
    if before is not None:
        conditions.append("(start_ns, trace_id) < (?, ?)")
        values += before
    clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"{_SELECT}{clause} ORDER BY start_ns DESC, trace_id DESC LIMIT ?"
    return [TraceRow(*row) for row in connection.execute(query, (*values, limit))]


def where(wanted: TraceFilter) -> tuple[list[str], list[Any]]:
    """SQL conditions and their parameters."""
    conditions: list[str] = []
    values: list[Any] = []
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(condition)
            values.append(match_expression(value) if name == "text" else value)
    return conditions, values


def match_expression(text: str) -> str:
    """What a person types, as an FTS5 expression: all words, "quoted words" as a phrase, nothing else special."""
    phrases = [part for i, part in enumerate(text.split('"')) if i % 2 for part in [part.strip()] if part]
    words = " ".join(part for i, part in enumerate(text.split('"')) if i % 2 == 0).split()
    return " ".join(f'"{term}"' for term in (*phrases, *words)) or '""'


def start_of(connection: sqlite3.Connection, trace_id: str) -> int | None:
    found = connection.execute("SELECT start_ns FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    return None if found is None else int(found[0])


def spans_of(connection: sqlite3.Connection, trace_id: str) -> list[Span]:
    """All spans of a trace, as they came, by start time."""
    unpacker = zstandard.ZstdDecompressor()
    bodies = connection.execute("SELECT spans FROM bodies WHERE trace_id = ? ORDER BY id", (trace_id,))
    spans = [
        span
        for (body,) in bodies
        for span in decode_spans(unpacker.decompress(body, max_output_size=BODY_BYTES_MAX))
    ]
    return sorted(spans, key=lambda span: (span.start_ns, span.parent_id is not None))


def traces_in(connection: sqlite3.Connection) -> list[tuple[str, str | None]]:
    """(trace id, app) of every trace in the file."""
    return connection.execute("SELECT trace_id, app FROM traces").fetchall()
