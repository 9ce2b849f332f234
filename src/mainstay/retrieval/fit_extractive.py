"""Fit the selection of answering sentences: `python -m mainstay.retrieval.fit_extractive MODELS_DIR [WORK_DIR]`.

Every sentence of the five best passages is a row; right when it overlaps the span that answers the question.
The threshold keeps 98 in 100 questions that have an answer. XQuAD is only measured on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainstay.models.types import SourcePassage
from mainstay.retrieval.extractive import (
    SELECTION_FEATURES,
    Candidate,
    ExtractiveSelector,
    candidates,
    lexical_features,
)
from mainstay.retrieval.fitting import Floats, equal_weight, fit_logistic, sigmoid, write_weights
from mainstay.retrieval.fitting_corpora import Collection, Question, load_collection
from mainstay.retrieval.indexes import Indexes
from mainstay.retrieval.minilm import MiniLmEmbedder
from mainstay.retrieval.types import RetrievalSettings

LICENCES = {"chunking": "MIT (Smith & Troynikov 2024)"}
_MEASURED_ONLY, _QUESTIONS_MAX, _SEED = "xquad-en", 400, 5
_KEPT_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the sentences to choose from. `right` is all False when the answer was taken out."""

    question: str
    features: Floats
    right: NDArray[np.bool_]
    answerable: bool


def main() -> None:
    embedder = MiniLmEmbedder.load(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as fresh:
        work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(fresh)
        train = _cases(load_collection("chunking"), embedder, work)
        unseen = _cases(load_collection(_MEASURED_ONLY), embedder, work)
    weights, bias = _fit(train)
    threshold = _threshold(train, weights, bias)
    card = {
        "trained_on": LICENCES,
        "cross_validated": _cross_validated(train),
        "unseen": {_MEASURED_ONLY: _measure(unseen, weights, bias, threshold)},
    }
    named = dict(zip(SELECTION_FEATURES, np.round(weights, 4).tolist(), strict=True))
    content = {"weights": named, "bias": round(bias, 4), "threshold": round(threshold, 4), "card": card}
    path = write_weights("extractive", content)
    sys.stderr.write(f"{path}\n{content}\n")


def _cases(collection: Collection, embedder: MiniLmEmbedder, work: Path) -> list[Case]:
    indexes = Indexes(work, collection, embedder)
    indexes.build(collection.snapshot_id)
    selector = ExtractiveSelector(embedder)
    order = np.random.default_rng(_SEED).permutation(len(collection.questions))[:_QUESTIONS_MAX]
    cases = []
    for place in order:
        question = collection.questions[place]
        for hidden in (frozenset[str](), question.relevant):
            cases.append(_case(indexes, collection, selector, question, hidden))
    indexes.close()
    return cases


def _case(
    indexes: Indexes,
    collection: Collection,
    selector: ExtractiveSelector,
    question: Question,
    hidden: frozenset[str],
) -> Case:
    groups = collection.all_but(hidden)
    found = indexes.search(collection.snapshot_id, question.text, RetrievalSettings(), groups)
    passages = [SourcePassage(one.number, one.text) for one in found.passages]
    ids = {one.number: one.uri for one in found.passages}
    sentences = candidates(passages)
    features = lexical_features(question.text, sentences)
    features[:, 0] = selector.cosines(question.text, [one.read_as for one in sentences])
    right = np.array([_is_right(one, ids[one.passage], collection, question) for one in sentences])
    return Case(question.text, features, right, not hidden)


def _is_right(sentence: Candidate, text_id: str, collection: Collection, question: Question) -> bool:
    """Does the sentence hold the answer, or lie within it for the most part?"""
    text = collection.texts[text_id][1]
    start = text.find(sentence.text)
    end = start + len(sentence.text)
    return any(
        text_id == where and min(end, b) - max(start, a) >= 0.5 * min(end - start, b - a)
        for where, a, b in question.answer_spans
    )


def _fit(cases: Sequence[Case]) -> tuple[Floats, float]:
    features = np.concatenate([case.features for case in cases])
    right = np.concatenate([case.right for case in cases])
    return fit_logistic(features, right, equal_weight(right.astype(str).tolist()), l2=1e-4, steps=4000)


def _best(case: Case, weights: Floats, bias: float) -> tuple[float, bool]:
    """Score of the sentence ranked first, and whether it is right."""
    scores = sigmoid(case.features @ weights + bias)
    first = int(np.argmax(scores))
    return float(scores[first]), bool(case.right[first])


def _threshold(cases: Sequence[Case], weights: Floats, bias: float) -> float:
    best = [_best(case, weights, bias)[0] for case in cases if case.answerable and case.right.any()]
    return float(np.quantile(best, 1 - _KEPT_SHARE))


def _measure(cases: Sequence[Case], weights: Floats, bias: float, threshold: float) -> dict[str, Any]:
    asked = [case for case in cases if case.answerable]
    reachable = [case for case in asked if case.right.any()]
    best = [_best(case, weights, bias) for case in reachable]
    taken_out = [_best(case, weights, bias)[0] for case in cases if not case.answerable]
    shown = [right for score, right in best if score >= threshold]
    return {
        "questions": len(asked),
        "answer among the passages": round(len(reachable) / len(asked), 3),
        "top-1 right, of all": round(sum(right for _, right in best) / len(asked), 3),
        "top-1 right, of those among the passages": round(float(np.mean([right for _, right in best])), 3),
        "answered at threshold": round(len(shown) / len(reachable), 3),
        "right when answered": round(float(np.mean(shown)), 3),
        "refused when the answer was taken out": round(float(np.mean(np.array(taken_out) < threshold)), 3),
    }


def _cross_validated(cases: Sequence[Case], folds: int = 5) -> dict[str, float]:
    """Top-1 accuracy with weights fitted on other questions."""
    questions = sorted({case.question for case in cases})
    fold = dict(zip(questions, np.arange(len(questions)) % folds, strict=True))
    rights: list[bool] = []
    for held in range(folds):
        fitted = _fit([case for case in cases if fold[case.question] != held])
        rights += [
            _best(case, *fitted)[1]
            for case in cases
            if fold[case.question] == held and case.answerable and case.right.any()
        ]
    return {"top-1 right, of those among the passages": round(float(np.mean(rights)), 3)}


if __name__ == "__main__":
    main()
