"""Vectors by (embedder fingerprint, digest of the text): nothing is embedded twice, across corpora and snapshots."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vector (
    embedder TEXT NOT NULL, text_digest BLOB NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (embedder, text_digest)
) WITHOUT ROWID
"""
_ROWS_PER_QUERY = 500  # SQLite bounds the number of parameters of one statement


def text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class VectorCache:
    """One SQLite file. Every `put` is one committed transaction, so a killed build loses one batch at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "PRAGMA secure_delete=ON"
            )  # an erased text's vector must not linger in free pages
            connection.execute(_SCHEMA)
            yield connection

    def get(self, embedder: str, digests: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there."""
        found: dict[bytes, NDArray[np.float32]] = {}
        with self._connect() as connection:
            for start in range(0, len(digests), _ROWS_PER_QUERY):
                some = digests[start : start + _ROWS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT text_digest, vector FROM vector WHERE embedder=? AND text_digest IN ({marks})",  # noqa: S608
                    [embedder, *some],
                )
                found.update((digest, np.frombuffer(blob, np.float32)) for digest, blob in rows)
        return found

    def put(self, embedder: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        rows = [(embedder, digest, vector.tobytes()) for digest, vector in vectors.items()]
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO vector VALUES (?,?,?)", rows)
            connection.execute("COMMIT")

    def count(self) -> int:
        with self._connect() as connection:
            return int(connection.execute("SELECT count(*) FROM vector").fetchone()[0])

    def keep_only(self, digests: Iterable[bytes]) -> int:
        """Delete the vectors of all other texts; returns how many went."""
        with self._connect() as connection:
            connection.execute("CREATE TEMP TABLE keep (text_digest BLOB PRIMARY KEY)")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO keep VALUES (?)", ((digest,) for digest in digests))
            gone = connection.execute(
                "DELETE FROM vector WHERE text_digest NOT IN (SELECT text_digest FROM keep)"
            ).rowcount
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(gone)
