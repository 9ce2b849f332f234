"""One snapshot's chunks in one SQLite file: rows for passages, FTS5 for words, labels for who may see them.

The full-text table is contentless (terms only): CJK text is indexed in pairs, but shown as it stands.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainstay.knowledge.types import Chunk, DocumentVersion, PageSpan
from mainstay.retrieval.stores.vector_cache import text_digest
from mainstay.retrieval.words import cut_cjk, index_term

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
    text TEXT NOT NULL, context TEXT NOT NULL, text_digest BLOB NOT NULL, later_pages TEXT NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5(
    context, body, content='', tokenize='porter unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row);
"""


_K1, _B, _IDF_MIN = 1.2, 0.75, 1e-6
_FREQUENCIES_KEPT_MAX = 16_384


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
    later_pages: tuple[tuple[int, int], ...]


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

    def add_chunk(self, chunk: Chunk, title: str, access: int, pages: Sequence[PageSpan] = ()) -> None:
        """`pages`: those of the whole version."""
        later = [(page.number, page.start) for page in _beginning_within(pages, chunk.start, chunk.end)]
        context = context_of(title, chunk.heading_path)
        self._connection.execute(
            "INSERT INTO chunk VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
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
                json.dumps(later),
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
    """A finished file, read only, closed when nothing refers to it. Thread-safe: one connection under a lock."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        weakref.finalize(self, self._connection.close)
        self._lock = threading.Lock()
        # Where each term stands; kept in the connection's own memory, as the file is only read.
        self._connection.execute("CREATE VIRTUAL TABLE temp.places USING fts5vocab(main, words, instance)")
        self._classes = {int(row[0]) for row in self._all("SELECT id FROM access")}
        self._lengths: NDArray[np.float64] | None = None
        self._frequencies: dict[tuple[str, tuple[int, ...]], int] = {}

    def _all(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def access_of_rows(self) -> list[int]:
        """The access class of every row, in row order."""
        return [int(row[0]) for row in self._all("SELECT access FROM chunk ORDER BY id")]

    def visible_access(self, groups: frozenset[str]) -> tuple[int, ...]:
        """Access classes without labels, or with one of the caller's groups."""
        classes = self._all("SELECT id, labels FROM access ORDER BY id")
        return tuple(int(number) for number, labels in classes if _visible(json.loads(labels), groups))

    def search(
        self, terms: Sequence[str], access: tuple[int, ...], visible: NDArray[np.bool_], limit: int
    ) -> list[tuple[int, float]]:
        """(row, BM25, higher is better) of the best visible rows that hold any of the terms.

        `visible` says of every row whether its class is in `access`. BM25 counts rows and terms: those of the
        visible rows alone, or else a score would tell how often a word stands in what the caller may not see.
        """
        if not terms or not access:
            return []
        if not self._sees_all(access):
            return self._search_among(terms, visible, limit)
        query = " OR ".join(f'"{term}"' for term in terms)
        sql = f"""
            SELECT rowid, -bm25(words, {TITLE_WEIGHT}, 1.0) AS score FROM words
            WHERE words MATCH ? ORDER BY score DESC, rowid LIMIT ?
        """  # noqa: S608 (only a number is put in)
        return [(int(row), float(score)) for row, score in self._all(sql, [query, limit])]

    def _search_among(
        self, terms: Sequence[str], visible: NDArray[np.bool_], limit: int
    ) -> list[tuple[int, float]]:
        """As FTS5 computes BM25 (k1 1.2, b 0.75, a word of the question counts as often as it stands)."""
        lengths = self._row_lengths()
        rows, mean = int(visible.sum()), float(lengths[visible].mean())
        damping = _K1 * (1 - _B + _B * lengths / mean) if mean else np.full(len(lengths), _K1)
        scores = np.zeros(len(lengths))
        for term, times in Counter(map(index_term, " ".join(terms).replace("_", " ").split())).items():
            weights = np.where(visible, self._weights(term, len(lengths)), 0.0)
            found = int(np.count_nonzero(weights))
            idf = max(math.log((rows - found + 0.5) / (found + 0.5)), _IDF_MIN)
            scores += times * idf * weights * (_K1 + 1) / (weights + damping)
        hits = np.flatnonzero(scores)
        best = hits[np.lexsort((hits, -scores[hits]))[:limit]]
        return [(int(row), float(scores[row])) for row in best]

    def _weights(self, term: str, rows: int) -> NDArray[np.float64]:
        """Of every row: how often the stemmed term stands there, in title and headings counted more."""
        found = self._all("SELECT doc, col='context' FROM temp.places WHERE term=?", (term,))
        places = np.array(found, np.int64).reshape(-1, 2)
        counted = np.bincount(places[:, 0], 1 + (TITLE_WEIGHT - 1) * places[:, 1], rows)
        return np.asarray(counted, np.float64)

    def _row_lengths(self) -> NDArray[np.float64]:
        """Words of each row, as the index counted them."""
        if self._lengths is None:
            sizes = self._all("SELECT sz FROM words_docsize ORDER BY id")
            self._lengths = np.array([sum(_varints(size)) for (size,) in sizes], np.float64)
        return self._lengths

    def _sees_all(self, access: tuple[int, ...]) -> bool:
        return self._classes <= set(access)

    def document_frequency(self, term: str, access: tuple[int, ...], visible: NDArray[np.bool_]) -> int:
        """In how many visible rows the stemmed term stands."""
        known = self._frequencies.get((term, access))
        if known is None:
            known = self._document_frequency(term, access, visible)
            if len(self._frequencies) >= _FREQUENCIES_KEPT_MAX:
                self._frequencies.clear()
            self._frequencies[term, access] = known
        return known

    def _document_frequency(self, term: str, access: tuple[int, ...], visible: NDArray[np.bool_]) -> int:
        if self._sees_all(access):
            found = self._all("SELECT doc FROM vocabulary WHERE term=?", (term,))
            return int(found[0][0]) if found else 0
        return int(np.count_nonzero(self._weights(term, len(visible))[visible]))

    def row(self, number: int) -> ChunkRow:
        (found,) = self._all(
            'SELECT c.chunk_id, c.version_id, c.start, c."end", c.page, c.heading_path, c.text, '
            "c.later_pages, d.uri, d.title, d.number FROM chunk c JOIN document d USING (version_id) WHERE c.id=?",
            (number,),
        )
        chunk_id, version_id, start, end, page, headings, text, later, uri, title, version_number = found
        path, pages = tuple(json.loads(headings)), tuple((at, begin) for at, begin in json.loads(later))
        return ChunkRow(chunk_id, version_id, start, end, page, path, text, uri, title, version_number, pages)

    def text_digests(self) -> Iterator[bytes]:
        for (digest,) in self._all("SELECT text_digest FROM chunk"):
            yield digest


def _varints(data: bytes) -> Iterator[int]:
    """SQLite's integers of up to 8 bytes: seven bits each, the high bit says that more follow."""
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            yield value
            value = 0


def _beginning_within(pages: Sequence[PageSpan], start: int, end: int) -> Sequence[PageSpan]:
    starts = [page.start for page in pages]
    return pages[bisect_right(starts, start) : bisect_left(starts, end)]


def _visible(labels: Iterable[str], groups: frozenset[str]) -> bool:
    labels = frozenset(labels)
    return not labels or bool(labels & groups)
