"""Connections to the many small SQLite files of the trace store: opened once, reused, bounded."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IDLE_MAX = 24


class ReaderPool:
    """Idle read-only connections by file, least recently used closed first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Path, sqlite3.Connection]] = OrderedDict()
        self._closed = False

    @contextmanager
    def borrow(self, path: Path) -> Iterator[sqlite3.Connection]:
        connection = self._take(path) or open_reader(path)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._give(path, connection)

    def discard(self, path: Path) -> None:
        """Close what is idle for a file that goes away."""
        with self._lock:
            for key in [key for key, (known, _) in self._idle.items() if known == path]:
                self._idle.pop(key)[1].close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.popitem()[1][1].close()

    def _take(self, path: Path) -> sqlite3.Connection | None:
        with self._lock:
            key = next((key for key, (known, _) in reversed(self._idle.items()) if known == path), None)
            return None if key is None else self._idle.pop(key)[1]

    def _give(self, path: Path, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._idle[id(connection)] = (path, connection)
            while self._idle and (self._closed or len(self._idle) > IDLE_MAX):
                self._idle.popitem(last=False)[1][1].close()


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes: WAL, and FULL synchronous, as the spool forgets what a commit has taken over."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. It is opened read-write, as a reader of a WAL file may have to make -shm."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only=ON")
    return connection


def has_schema(connection: sqlite3.Connection) -> bool:
    """False for a file whose writer has not made its tables yet."""
    return bool(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction, taken at once so that it cannot fail half-way for a lock."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
