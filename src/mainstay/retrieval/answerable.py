"""Does the corpus hold an answer? An estimate from the scores of the search alone.

It says that the corpus is near the question, not that the answer is there: what an answer claims still
needs its source. Weights are fitted by `python -m mainstay.retrieval.fit_answerable`; the card that
comes with them names data and measured quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from mainstay.retrieval.weights import read_weights
from mainstay.retrieval.words import content_stems

SIGNALS = ("cosine", "gap", "bm25_per_idf", "cover")


@dataclass(frozen=True, slots=True)
class Signals:
    """What a search tells about its question; more of each means more likely answerable.

    `cosine`: best dense score. `gap`: best minus mean of the dense candidates. `bm25_per_idf`: best BM25
    divided by the question's idf mass. `cover`: share of that mass found in the passage ranked first.
    """

    cosine: float
    gap: float
    bm25_per_idf: float
    cover: float


def idf(document_frequency: int, documents: int) -> float:
    """The idf of BM25 (Robertson & Spärck Jones 1976, kept positive)."""
    return math.log(1 + (documents - document_frequency + 0.5) / (document_frequency + 0.5))


def signals(
    question: str,
    dense_scores: Sequence[float],
    best_bm25: float,
    best_text: str,
    term_idf: Callable[[str], float],
) -> Signals:
    """`dense_scores`: cosines of the candidates, best first. `best_text`: the passage ranked first."""
    mass = {stem: term_idf(stem) for stem in dict.fromkeys(content_stems(question))}  # in their order
    total = sum(mass.values())
    found = frozenset(content_stems(best_text))
    cosine = dense_scores[0] if dense_scores else 0.0
    return Signals(
        cosine=cosine,
        gap=cosine - float(np.mean(dense_scores)) if dense_scores else 0.0,
        bm25_per_idf=best_bm25 / total if total else 0.0,
        cover=sum(weight for stem, weight in mass.items() if stem in found) / total if total else 0.0,
    )


@dataclass(frozen=True, slots=True)
class AnswerableModel:
    """Logistic regression on the signals; weights are not negative."""

    weights: NDArray[np.float64]
    bias: float

    @classmethod
    def load(cls) -> AnswerableModel:
        stored = read_weights("answerable")
        return cls(np.array([stored["weights"][name] for name in SIGNALS]), float(stored["bias"]))

    def probability(self, measured: Signals) -> float:
        return float(1 / (1 + math.exp(-(self.bias + float(self.weights @ np.array(astuple(measured)))))))
