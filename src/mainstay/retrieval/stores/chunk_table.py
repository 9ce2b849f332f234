"""One snapshot's chunks in one SQLite file: rows for passages, FTS5 for words, labels for who may see them.

The full-text table is contentless (terms only): CJK text is indexed in pairs, but shown as it stands.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mainstay.knowledge.types import Chunk, DocumentVersion
from mainstay.retrieval.stores.vector_cache import text_digest
from mainstay.retrieval.words import cut_cjk

TITLE_WEIGHT = 2.0
_SCHEMA = """
CREATE TABLE access (id INTEGER PRIMARY KEY, labels TEXT NOT NULL UNIQUE);
CREATE TABLE document (
    version_id TEXT PRIMARY KEY, uri TEXT NOT NULL, title TEXT NOT NULL, number INTEGER NOT NULL,
    access INTEGER NOT NULL REFERENCES access(id)
) WITHOUT ROWID;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, chunk_id TEXT NOT NULL, version_id TEXT NOT NULL, access INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, page INTEGER, heading_path TEXT NOT NULL,
    text TEXT NOT NULL, context TEXT NOT NULL, text_digest BLOB NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5(
    context, body, content='', tokenize='porter unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row);
"""


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk with what a passage shows of its document."""

    chunk_id: str
    version_id: str
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    text: str
    uri: str
    title: str
    version_number: int


def context_of(title: str, heading_path: Sequence[str]) -> str:
    """Title and headings on lines of their own; a heading that repeats the one before it is dropped."""
    lines = [line.strip() for line in (title, *heading_path)]
    return "\n".join(
        line for place, line in enumerate(lines) if line and (place == 0 or line != lines[place - 1])
    )


def embedded_text(context: str, text: str) -> str:
    """What is embedded for a chunk: where it stands, then what it says."""
    return f"{context}\n{text}" if context else text


class ChunkTableWriter:
    """Fills a new file; rows get the numbers 0, 1, 2 … in the order they come, as the vectors' rows do."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=OFF")  # the file is thrown away when the build dies
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)
        self._connection.execute("BEGIN")
        self._access: dict[str, int] = {}
        self._rows = 0

    def add_document(self, version: DocumentVersion) -> int:
        """Returns the number of its access class."""
        labels = json.dumps(sorted(version.labels))
        if labels not in self._access:
            self._access[labels] = len(self._access)
            self._connection.execute("INSERT INTO access VALUES (?,?)", (self._access[labels], labels))
        self._connection.execute(
            "INSERT OR IGNORE INTO document VALUES (?,?,?,?,?)",
            (version.id, version.uri, version.title, version.number, self._access[labels]),
        )
        return self._access[labels]

    def add_chunk(self, chunk: Chunk, title: str, access: int) -> None:
        context = context_of(title, chunk.heading_path)
        self._connection.execute(
            "INSERT INTO chunk VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                self._rows,
                chunk.id,
                chunk.version_id,
                access,
                chunk.start,
                chunk.end,
                chunk.page,
                json.dumps(chunk.heading_path),
                chunk.text,
                context,
                text_digest(embedded_text(context, chunk.text)),
            ),
        )
        self._connection.execute(
            "INSERT INTO words(rowid, context, body) VALUES (?,?,?)",
            (self._rows, cut_cjk(context), cut_cjk(chunk.text)),
        )
        self._rows += 1

    def embedded_texts(self, start: int, count: int) -> list[tuple[bytes, str]]:
        """(digest, text to embed) of rows start … start+count-1, in row order."""
        rows = self._connection.execute(
            "SELECT text_digest, context, text FROM chunk WHERE id>=? AND id<? ORDER BY id",
            (start, start + count),
        )
        return [(digest, embedded_text(context, text)) for digest, context, text in rows]

    def __len__(self) -> int:
        return self._rows

    def finish(self) -> None:
        self._connection.execute("INSERT INTO words(words) VALUES ('optimize')")
        self._connection.execute("COMMIT")
        self.close()

    def close(self) -> None:
        self._connection.close()


class ChunkTable:
    """A finished file, read only. Thread-safe: one connection under a lock, queries take milliseconds."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._lock = threading.Lock()
        self.document_frequency = lru_cache(maxsize=16_384)(self._document_frequency)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _all(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def access_of_rows(self) -> list[int]:
        """The access class of every row, in row order."""
        return [int(row[0]) for row in self._all("SELECT access FROM chunk ORDER BY id")]

    def visible_access(self, groups: frozenset[str]) -> list[int]:
        """Access classes without labels, or with one of the caller's groups."""
        classes = self._all("SELECT id, labels FROM access")
        return [int(number) for number, labels in classes if _visible(json.loads(labels), groups)]

    def search(self, terms: Sequence[str], access: Sequence[int], limit: int) -> list[tuple[int, float]]:
        """(row, BM25, higher is better) of the best visible rows that hold any of the terms."""
        if not terms or not access:
            return []
        query = " OR ".join(f'"{term}"' for term in terms)
        sql = f"""
            SELECT words.rowid, -bm25(words, {TITLE_WEIGHT}, 1.0) AS score FROM words
            JOIN chunk ON chunk.id = words.rowid
            WHERE words MATCH ? AND chunk.access IN ({",".join("?" * len(access))})
            ORDER BY score DESC, words.rowid LIMIT ?
        """  # noqa: S608 (only question marks are put in)
        return [(int(row), float(score)) for row, score in self._all(sql, [query, *access, limit])]

    def _document_frequency(self, term: str) -> int:
        """In how many rows the stemmed term stands."""
        found = self._all("SELECT doc FROM vocabulary WHERE term=?", (term,))
        return int(found[0][0]) if found else 0

    def row(self, number: int) -> ChunkRow:
        (found,) = self._all(
            'SELECT c.chunk_id, c.version_id, c.start, c."end", c.page, c.heading_path, c.text, '
            "d.uri, d.title, d.number FROM chunk c JOIN document d USING (version_id) WHERE c.id=?",
            (number,),
        )
        chunk_id, version_id, start, end, page, headings, text, uri, title, version_number = found
        path = tuple(json.loads(headings))
        return ChunkRow(chunk_id, version_id, start, end, page, path, text, uri, title, version_number)

    def text_digests(self) -> Iterator[bytes]:
        for (digest,) in self._all("SELECT text_digest FROM chunk"):
            yield digest


def _visible(labels: Iterable[str], groups: frozenset[str]) -> bool:
    labels = frozenset(labels)
    return not labels or bool(labels & groups)
