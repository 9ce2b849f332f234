"""Fit the grounding model: `python -m mainstay.retrieval.fit_grounding`. Data from MAINSTAY_DATA; minutes on one core.

Trained on permissively licensed sources and on examples made by program (`made_examples`); calibrated, and the
threshold chosen, on the dev file. Sources under share-alike or unstated licences are only measured on.
Writes weights/grounding.json, with its card.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainstay.retrieval.facts import read_facts
from mainstay.retrieval.fitting import (
    Floats,
    auroc,
    best_threshold,
    data_root,
    equal_weight,
    fit_logistic,
    read_lines,
    write_weights,
)
from mainstay.retrieval.grounding import (
    COPIED_SCORE,
    RAMPS,
    GroundingModel,
    GroundingScorer,
    on_ramps,
)
from mainstay.retrieval.made_examples import make_examples
from mainstay.retrieval.sentences import split_sentences
from mainstay.retrieval.support_features import FEATURES, Sources, measure
from mainstay.retrieval.types import Passage

LICENCES = {
    "faithdial_audit": "MIT (FaithDial audit, Dziri et al. 2022)",
    "begin_wow": "CC BY 4.0 (BEGIN, Dziri et al. 2022)",
    "begin_cmu": "permissive, CMU (BEGIN)",
    "begin_tc": "CDLA-Sharing 1.0, which leaves results free (BEGIN)",
    "made_edits": "ODC-By 1.0 (SciFact abstracts, edited by program)",
}
"""What is trained on."""
_FAMILIES = dict.fromkeys(("faithdial_audit", "begin_wow", "begin_cmu", "begin_tc"), "dialogue")
"""Sources that share texts and annotators are left out together."""
_MADE_PAIRS, _SEED, _ROUNDS, _GROUP_POWER = 1200, 7, 3, 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its sentences' features. `wrong`: which sentences hold the error, where that is known."""

    source: str
    supported: bool
    features: Floats
    wrong: tuple[bool, ...] | None


def main() -> None:
    train = _train_answers()
    dev = [_answer(record) for record in _dev_records()]
    weights, bias = _fit(train)
    weights, bias = _calibrated(weights, bias, dev)
    _, threshold = _with_rules(weights, bias)
    bias -= math.log(threshold / (1 - threshold))  # so that a score of one half is the border
    scores, threshold = _scores_with_rules(weights, bias, 0.5), 0.5
    content = _content(weights, bias, threshold, _card(train, dev, scores, threshold))
    path = write_weights("grounding", content)
    sys.stderr.write(f"{path}\n{content['card']}\n")


def _train_answers() -> list[Answer]:
    root = data_root()
    records = read_lines(root / "hallucination/groundedness_train.jsonl")
    answers = [_answer(record) for record in records if record["source"] in LICENCES]
    abstracts = [record["text"] for record in read_lines(root / "retrieval/scifact/corpus.jsonl.gz")]
    for made in make_examples(abstracts, _SEED, _MADE_PAIRS):
        answers.append(
            _answer(
                {
                    "context": made.context,
                    "answer": made.answer,
                    "label": int(not made.supported),
                    "source": made.source,
                }
            )
        )
    return answers


def _answer(record: Mapping[str, Any]) -> Answer:
    text = record["answer"]
    sources = Sources([("", record["context"])])
    spans = split_sentences(text) or [(0, len(text))]
    features = np.array([measure(read_facts(text[start:end]), sources).values for start, end in spans])
    errors = record.get("spans") if record["label"] else None
    wrong = None
    if errors:
        wrong = tuple(any(a < end and b > start for a, b in errors) for start, end in spans)
    return Answer(record["source"], not record["label"], features, wrong)


def _fit(answers: Sequence[Answer]) -> tuple[Floats, float]:
    """Multiple-instance fit: of a wrong answer, only the sentence that looks least supported counts as wrong."""
    weights, bias = np.ones(len(RAMPS) * len(FEATURES)), 0.0
    for _ in range(_ROUNDS):
        rows = [row for answer in answers for row in _labelled(answer, weights)]
        features = np.array([row[0] for row in rows])
        labels = np.array([row[1] for row in rows])
        groups = equal_weight([row[2] for row in rows], _GROUP_POWER)
        weights, bias = fit_logistic(on_ramps(features), labels, groups)
    return weights, bias


def _labelled(answer: Answer, weights: Floats) -> list[tuple[Floats, bool, str]]:
    if answer.supported:
        return [(row, True, answer.source) for row in answer.features]
    if answer.wrong is not None:
        return [
            (row, not wrong, answer.source) for row, wrong in zip(answer.features, answer.wrong, strict=True)
        ]
    weakest = int(np.argmin(on_ramps(answer.features) @ weights))
    return [(answer.features[weakest], False, answer.source)]


def _log_odds(answers: Sequence[Answer], weights: Floats, bias: float) -> Floats:
    """An answer is as good as its weakest sentence."""
    return np.array([float(np.min(on_ramps(answer.features) @ weights)) + bias for answer in answers])


def _calibrated(weights: Floats, bias: float, dev: Sequence[Answer]) -> tuple[Floats, float]:
    """Scale and shift the log-odds to fit dev, sources weighted alike (Platt 1999)."""
    raw = _log_odds(dev, weights, bias)
    labels = np.array([answer.supported for answer in dev])
    scale, shift = fit_logistic(raw[:, None], labels, equal_weight([one.source for one in dev]), l2=0.0)
    return weights * scale[0], bias * scale[0] + shift


def _with_rules(weights: Floats, bias: float) -> tuple[Floats, float]:
    """Dev scores as users get them, the two rules applied, and the threshold: best balanced accuracy, mean over families."""
    records = _dev_records()
    labels = np.array([not record["label"] for record in records])
    families = [_family(record["source"]) for record in records]
    threshold = 0.5
    for _ in range(2):  # the rules hold scores below the threshold, so they depend on it
        scores = _scores_with_rules(weights, bias, threshold)
        threshold = best_threshold(scores, labels, families)
    return scores, threshold


def _scores_with_rules(weights: Floats, bias: float, threshold: float) -> Floats:
    scorer = GroundingScorer(GroundingModel(weights, bias, threshold))
    return np.array([_answer_score(scorer, record) for record in _dev_records()])


def _dev_records() -> list[dict[str, Any]]:
    return list(read_lines(data_root() / "hallucination/groundedness_dev.jsonl"))


def _answer_score(scorer: GroundingScorer, record: Mapping[str, Any]) -> float:
    passage = _passage(record["context"])
    found = scorer.support_all(record["answer"], [passage])
    return min((support.score for _, support in found), default=0.0)


def _passage(text: str) -> Passage:
    return Passage(1, "c", "v", "u", "", 1, 0, len(text), None, (), text, 1.0)


def _content(weights: Floats, bias: float, threshold: float, card: Mapping[str, Any]) -> dict[str, Any]:
    by_feature = np.round(weights, 4).reshape(len(RAMPS), len(FEATURES)).T
    named = dict(zip(FEATURES, by_feature.tolist(), strict=True))
    return {"weights": named, "bias": round(bias, 4), "threshold": round(threshold, 4), "card": dict(card)}


def _card(train: Sequence[Answer], dev: Sequence[Answer], scores: Floats, threshold: float) -> dict[str, Any]:
    labels = np.array([answer.supported for answer in dev])
    groups = np.array([answer.source for answer in dev])
    per_source = _per_source(scores, labels, groups)
    return {
        "trained_on": LICENCES,
        "training_answers": len(train),
        "dev_answers": len(dev),
        "auroc_pooled": round(auroc(scores, labels), 3),
        "auroc_macro": round(float(np.mean(list(per_source.values()))), 3),
        "auroc_per_source": per_source,
        "auroc_left_out": _left_out(train, dev),
        "at_threshold": _at_threshold(scores >= threshold, labels),
        "at_threshold_cross_validated": _cross_validated(
            scores, labels, [_family(one.source) for one in dev]
        ),
        "balanced_accuracy_macro": _macro(scores >= threshold, labels, groups),
        "at_threshold_per_source": {
            str(name): _at_threshold(scores[groups == name] >= threshold, labels[groups == name])
            for name in sorted(set(groups))
        },
        "copied_score": COPIED_SCORE,
    }


def _per_source(scores: Floats, labels: NDArray[np.bool_], groups: NDArray[Any]) -> dict[str, float]:
    return {
        str(name): round(auroc(scores[groups == name], labels[groups == name]), 3)
        for name in sorted(set(groups))
    }


def _left_out(train: Sequence[Answer], dev: Sequence[Answer]) -> dict[str, float]:
    """Per source: AUROC on its dev answers of the model (without rules) that was fitted without that source.

    Dialogue sources are left out together, as they share texts and annotators.
    """
    fits: dict[str, tuple[Floats, float]] = {}
    result: dict[str, float] = {}
    for name in sorted({answer.source for answer in dev}):
        family = _FAMILIES.get(name, "unseen")
        if family not in fits:
            fits[family] = _fit([one for one in train if _FAMILIES.get(one.source) != family])
        held = [answer for answer in dev if answer.source == name]
        result[name] = round(auroc(_log_odds(held, *fits[family]), [one.supported for one in held]), 3)
    return result


def _family(source: str) -> str:
    return source.split("_", maxsplit=1)[0]


def _at_threshold(supported: NDArray[np.bool_], labels: NDArray[np.bool_]) -> dict[str, float]:
    """Accuracy, and precision and recall of the verdict "unsupported"."""
    caught = int((~supported & ~labels).sum())
    flagged, wrong = int((~supported).sum()), int((~labels).sum())
    kept = float((supported & labels).sum() / max(1, labels.sum()))
    return {
        "accuracy": round(float((supported == labels).mean()), 3),
        "balanced_accuracy": round((caught / max(1, wrong) + kept) / 2, 3),
        "unsupported_precision": round(caught / max(1, flagged), 3),
        "unsupported_recall": round(caught / max(1, wrong), 3),
        "supported_kept": round(kept, 3),
    }


def _macro(supported: NDArray[np.bool_], labels: NDArray[np.bool_], groups: NDArray[Any]) -> float:
    """Mean over families of sources of the balanced accuracy."""
    families = np.array([_family(str(one)) for one in groups])
    each = [
        _at_threshold(supported[families == one], labels[families == one])["balanced_accuracy"]
        for one in sorted(set(families))
    ]
    return round(float(np.mean(each)), 3)


def _cross_validated(
    scores: Floats, labels: NDArray[np.bool_], families: Sequence[str], folds: int = 5
) -> dict[str, float]:
    """The threshold chosen on four fifths of dev, measured on the fifth."""
    fold = np.random.default_rng(_SEED).integers(0, folds, len(scores))
    verdict = np.zeros(len(scores), bool)
    for one in range(folds):
        rest = fold != one
        kept = [family for family, chosen in zip(families, rest, strict=True) if chosen]
        verdict[~rest] = scores[~rest] >= best_threshold(scores[rest], labels[rest], kept)
    return _at_threshold(verdict, labels)


if __name__ == "__main__":
    main()
