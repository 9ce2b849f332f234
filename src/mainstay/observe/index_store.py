"""The SQL of index.db: which day's file holds a trace, and which apps have traces."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from mainstay.observe.pool import immediate, open_writer

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS traces (trace_id TEXT PRIMARY KEY, day TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS traces_by_day ON traces (day)",
    "CREATE TABLE IF NOT EXISTS apps (app TEXT PRIMARY KEY, last_day TEXT NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version = 1",
)


class IndexWriter:
    """The writing side of index.db. A trace's day is decided once, before its first span is stored."""

    def __init__(self, path: Path) -> None:
        self._connection = open_writer(path)
        self._last_day: dict[str, str] = {}
        with immediate(self._connection):
            for statement in _SCHEMA:
                self._connection.execute(statement)
        self._last_day.update(self._connection.execute("SELECT app, last_day FROM apps"))

    def route(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The day of each trace: the one it has, else the wanted one from now on."""
        with immediate(self._connection):
            self._connection.executemany("INSERT OR IGNORE INTO traces VALUES (?, ?)", wanted.items())
            return {trace_id: day_of(self._connection, trace_id) or day for trace_id, day in wanted.items()}

    def note_apps(self, day: str, apps: Sequence[str]) -> None:
        """Remember that these apps have traces on that day."""
        news = [(app, day) for app in apps if self._last_day.get(app, "") < day]
        if not news:
            return
        with immediate(self._connection):
            self._connection.executemany(
                "INSERT INTO apps VALUES (?, ?) ON CONFLICT (app) DO UPDATE SET last_day = max(last_day, excluded.last_day)",
                news,
            )
        self._last_day.update(news)

    def forget_day(self, day: str) -> None:
        """Forget a deleted day's traces, and the apps that have none since."""
        with immediate(self._connection):
            self._connection.execute("DELETE FROM traces WHERE day = ?", (day,))
            self._connection.execute("DELETE FROM apps WHERE last_day <= ?", (day,))
        self._last_day = {app: last for app, last in self._last_day.items() if last > day}

    def close(self) -> None:
        self._connection.close()


def day_of(connection: sqlite3.Connection, trace_id: str) -> str | None:
    found = connection.execute("SELECT day FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    return None if found is None else str(found[0])


def known_apps(connection: sqlite3.Connection) -> list[str]:
    return [str(app) for (app,) in connection.execute("SELECT app FROM apps ORDER BY app")]
