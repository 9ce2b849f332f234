"""Fit the estimate of answerability: `python -m mainstay.retrieval.fit_answerable MODELS_DIR [WORK_DIR]`.

Each question is asked of its corpus (answerable), of the corpus without the texts that answer it, and of
another collection (both not answerable). Fitted on openly licensed collections; XQuAD is only measured on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from mainstay.retrieval.answerable import SIGNALS
from mainstay.retrieval.fitting import Floats, auroc, equal_weight, fit_logistic, sigmoid, write_weights
from mainstay.retrieval.fitting_corpora import Collection, Question, load_collection
from mainstay.retrieval.indexes import Indexes
from mainstay.retrieval.minilm import MiniLmEmbedder
from mainstay.retrieval.types import RetrievalSettings

LICENCES = {
    "chunking": "MIT (Smith & Troynikov 2024)",
    "scifact": "claims CC BY 4.0, abstracts ODC-By 1.0 (Wadden et al. 2020), training split",
}
_MEASURED_ONLY = {"xquad-en": "test", "xquad-de": "test"}
_QUESTIONS_MAX, _FOLDS, _SEED = 300, 5, 5
_NEAR, _FAR = "answer taken out", "other collection"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question asked of one corpus. `how` tells the kind of unanswerable question; None when answerable."""

    collection: str
    question: str
    signals: tuple[float, ...]
    how: str | None


def main() -> None:
    embedder = MiniLmEmbedder.load(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as fresh:
        work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(fresh)
        collections = [load_collection("chunking"), load_collection("scifact", "train")]
        asked = _ask_all(collections, embedder, work)
        unseen = [load_collection(name, split) for name, split in _MEASURED_ONLY.items()]
        measured = _ask_all(unseen, embedder, work)
    weights, bias = _fit(asked)
    card = {
        "trained_on": LICENCES,
        "questions_asked": len(asked),
        "auroc_cross_validated": _by_collection(asked, _cross_validated(asked)),
        "auroc_left_out": _left_out(asked),
        "auroc_unseen_collections": _by_collection(measured, _scores(measured, weights, bias)),
    }
    named = dict(zip(SIGNALS, np.round(weights, 4).tolist(), strict=True))
    path = write_weights("answerable", {"weights": named, "bias": round(bias, 4), "card": card})
    sys.stderr.write(f"{path}\n{named} {bias}\n{card}\n")


def _ask_all(collections: Sequence[Collection], embedder: MiniLmEmbedder, work: Path) -> list[Asked]:
    asked = []
    for place, collection in enumerate(collections):
        indexes = Indexes(work, collection, embedder)
        indexes.build(collection.snapshot_id)
        other = collections[place - 1]
        own, foreign = _sample(collection, _QUESTIONS_MAX), _sample(other, _QUESTIONS_MAX // 2)
        asked += [_ask(indexes, collection, embedder, one, frozenset(), None) for one in own]
        asked += [_ask(indexes, collection, embedder, one, one.relevant, _NEAR) for one in own]
        asked += [_ask(indexes, collection, embedder, one, frozenset(), _FAR) for one in foreign]
        indexes.close()
    return asked


def _sample(collection: Collection, count: int) -> list[Question]:
    order = np.random.default_rng(_SEED).permutation(len(collection.questions))[:count]
    return [collection.questions[place] for place in order]


def _ask(
    indexes: Indexes,
    collection: Collection,
    embedder: MiniLmEmbedder,
    question: Question,
    hidden: frozenset[str],
    how: str | None,
) -> Asked:
    segment = indexes.segment(collection.snapshot_id)
    vector = embedder.embed([question.text])[0]
    ranking = segment.rank(question.text, vector, RetrievalSettings(), collection.all_but(hidden))
    return Asked(collection.name, question.text, astuple(ranking.signals), how)


def _fit(asked: Sequence[Asked]) -> tuple[Floats, float]:
    signals = np.array([one.signals for one in asked])
    answerable = np.array([one.how is None for one in asked])
    # half the weight to each class within each collection
    groups = [f"{one.collection} {one.how is None}" for one in asked]
    return fit_logistic(signals, answerable, equal_weight(groups), l2=1e-4, steps=4000)


def _scores(asked: Sequence[Asked], weights: Floats, bias: float) -> Floats:
    return sigmoid(np.array([one.signals for one in asked]) @ weights + bias)


def _cross_validated(asked: Sequence[Asked]) -> Floats:
    """Scores of each question from weights fitted without it, in any corpus."""
    questions = sorted({one.question for one in asked})
    folds = dict(
        zip(questions, np.random.default_rng(_SEED).integers(0, _FOLDS, len(questions)), strict=True)
    )
    fold = np.array([folds[one.question] for one in asked])
    scores = np.zeros(len(asked))
    for held in range(_FOLDS):
        fitted = _fit([one for one, place in zip(asked, fold, strict=True) if place != held])
        scores[fold == held] = _scores(asked, *fitted)[fold == held]
    return scores


def _left_out(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Each collection scored by weights fitted on the others alone."""
    result: dict[str, dict[str, float]] = {}
    for name in sorted({one.collection for one in asked}):
        fitted = _fit([one for one in asked if one.collection != name])
        held = [one for one in asked if one.collection == name]
        result |= _by_collection(held, _scores(held, *fitted))
    return result


def _by_collection(asked: Sequence[Asked], scores: Floats) -> dict[str, dict[str, float]]:
    """AUROC of answerable against each kind of unanswerable, and what is kept at even odds."""
    result: dict[str, dict[str, float]] = {}
    names = np.array([one.collection for one in asked])
    kinds = np.array([one.how or "" for one in asked])
    for name in sorted(set(names)):
        own = {kind: scores[(names == name) & (kinds == kind)] for kind in ("", _NEAR, _FAR)}
        result[str(name)] = {
            f"auroc, {kind}": round(_auroc_of(own[""], own[kind]), 3) for kind in (_NEAR, _FAR)
        } | {
            "answerable kept at 0.5": round(float((own[""] >= 0.5).mean()), 3),
            "answer taken out refused at 0.5": round(float((own[_NEAR] < 0.5).mean()), 3),
            "other collection refused at 0.5": round(float((own[_FAR] < 0.5).mean()), 3),
        }
    return result


def _auroc_of(positive: Floats, negative: Floats) -> float:
    labels = np.arange(len(positive) + len(negative)) < len(positive)
    return auroc(np.concatenate([positive, negative]), labels)


if __name__ == "__main__":
    main()
