"""The opened index of one snapshot: rank its chunks for a question, for what the caller may see."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mainstay.retrieval.answerable import Signals, idf, signals
from mainstay.retrieval.fusion import Ranked, fuse, scale
from mainstay.retrieval.stores.chunk_table import ChunkTable
from mainstay.retrieval.types import Passage, RetrievalSettings
from mainstay.retrieval.words import search_terms

CHUNKS_NAME, VECTORS_NAME = "chunks.db", "vectors.npy"
_TERMS_MAX = 200
"""Words of a question that are searched for; a longer text is cut, as each term costs time."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages, best first, and what the search tells about the question."""

    passages: tuple[Passage, ...]
    signals: Signals


class Segment:
    """Immutable; thread-safe. Vectors stay on disk, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._chunks = ChunkTable(folder / CHUNKS_NAME)
        self._access = np.array(self._chunks.access_of_rows(), np.int64)
        mode: Literal["r"] | None = "r" if len(self._access) else None
        self._vectors: NDArray[np.float32] = np.asarray(np.load(folder / VECTORS_NAME, mmap_mode=mode))

    def __len__(self) -> int:
        return len(self._access)

    def text_digests(self) -> list[bytes]:
        return list(self._chunks.text_digests())

    def rank(
        self,
        question: str,
        vector: NDArray[np.float32],
        settings: RetrievalSettings,
        groups: frozenset[str],
    ) -> Ranking:
        """Labels filter before anything is cut to the best, so hidden chunks never take a visible one's place."""
        access = self._chunks.visible_access(groups)
        visible = np.isin(self._access, access)
        candidates = max(settings.candidates, settings.top_k)
        cosines = self._vectors @ vector
        dense = _best(cosines, visible, candidates)
        terms = search_terms(question)[:_TERMS_MAX]
        lexical = self._chunks.search(terms, access, visible, candidates)
        ranked = _order(dense, lexical, settings, complete=len(lexical) < candidates)
        parts = _ScoreParts(cosines, dict(lexical))
        passages = tuple(
            self._passage(number, row, score, parts.of(row))
            for number, (row, score) in enumerate(ranked[: settings.top_k], start=1)
        )
        term_idf = partial(self._idf, access=access, visible=visible)
        return Ranking(passages, _signals(question, dense, lexical, passages, term_idf))

    def _idf(self, term: str, access: tuple[int, ...], visible: NDArray[np.bool_]) -> float:
        return idf(self._chunks.document_frequency(term, access, visible), int(visible.sum()))

    def _passage(self, number: int, row: int, score: float, parts: Mapping[str, float]) -> Passage:
        chunk = self._chunks.row(row)
        return Passage(
            number=number,
            chunk_id=chunk.chunk_id,
            version_id=chunk.version_id,
            uri=chunk.uri,
            title=chunk.title,
            version_number=chunk.version_number,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            heading_path=chunk.heading_path,
            text=chunk.text,
            score=score,
            score_parts=parts,
            later_pages=chunk.later_pages,
        )


@dataclass(frozen=True, slots=True)
class _ScoreParts:
    """The unscaled scores behind a rank: cosine always, BM25 where a term was found."""

    cosines: NDArray[np.float32]
    bm25: Mapping[int, float]

    def of(self, row: int) -> dict[str, float]:
        parts = {"dense": float(self.cosines[row])}
        if row in self.bm25:
            parts["lexical"] = self.bm25[row]
        return parts


def _signals(
    question: str,
    dense: Ranked,
    lexical: Ranked,
    passages: Sequence[Passage],
    term_idf: Callable[[str], float],
) -> Signals:
    best = passages[0] if passages else None
    text = "" if best is None else "\n".join((best.title, *best.heading_path, best.text))
    best_bm25 = lexical[0][1] if lexical else 0.0
    return signals(_beginning(question), [score for _, score in dense], best_bm25, text, term_idf)


def _beginning(question: str) -> str:
    """The words that are searched for, and those between them."""
    words = islice(re.finditer(r"\w+", question), _TERMS_MAX)
    return question[: max((word.end() for word in words), default=0)]


def _best(scores: NDArray[np.float32], visible: NDArray[np.bool_], count: int) -> list[tuple[int, float]]:
    """(row, score) of the best visible rows, best first, ties by row."""
    rows = np.flatnonzero(visible)
    if len(rows) > count:
        rows = rows[np.argpartition(-scores[rows], count - 1)[:count]]
    rows = rows[np.lexsort((rows, -scores[rows]))]
    return [(int(row), float(scores[row])) for row in rows]


def _order(dense: Ranked, lexical: Ranked, settings: RetrievalSettings, *, complete: bool) -> Ranked:
    if settings.mode == "dense":
        return dense
    if settings.mode == "lexical":
        return lexical
    return fuse(scale(dense), scale(lexical, complete=complete), settings.dense_weight)
