"""Nouns of retrieval: embedders, settings, passages, support and citations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Turns texts into unit vectors. The same text gives the same vector in any batch."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), rows of length 1."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> int: ...


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How a release retrieves. `dense_weight` mixes min-max-scaled scores: 0 lexical only, 1 dense only."""

    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    top_k: int = 5
    candidates: int = 100
    dense_weight: float = 0.5
    answerable_min: float = 0.0
    """Below this answerability (0-1) the app says the sources do not say, without asking a model."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved chunk, numbered from 1 as it is cited. Offsets as in knowledge.types."""

    number: int
    chunk_id: str
    version_id: str
    uri: str
    title: str
    version_number: int
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    text: str
    score: float
    score_parts: Mapping[str, float] = field(default_factory=dict)
    later_pages: tuple[tuple[int, int], ...] = ()
    """(page, its start) of each page that begins within the passage; `page` is the one it starts on."""

    def page_at(self, offset: int) -> int | None:
        """The page that an offset of the passage stands on."""
        return next((page for page, start in reversed(self.later_pages) if start <= offset), self.page)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """`answerable`: estimated probability that the corpus holds an answer, from the scores alone."""

    snapshot_id: str
    passages: tuple[Passage, ...]
    answerable: float


@dataclass(frozen=True, slots=True)
class Support:
    """How well one sentence of an answer is supported: calibrated score 0-1 and the best source span.

    `passage` is the number of the supporting passage, `start`/`end` its sentence span in the document version.
    """

    score: float
    supported: bool
    passage: int | None
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Citation:
    """`[number]` in an answer: an exact span of one document version. `quote == version.text[start:end]`."""

    number: int
    version_id: str
    uri: str
    title: str
    version_number: int
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    quote: str
    score: float
