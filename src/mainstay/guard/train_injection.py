"""Train the injection detector: `python -m mainstay.guard.train_injection [--write]`.

Reads `safety/injection_*.jsonl` and `safety/indirect_*.jsonl` under MAINSTAY_DATA (default ../shared/data),
fits, measures, prints the figures as JSON, and with `--write` replaces the shipped weights. NumPy alone, fixed
seeds: the same data give the same bytes on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainstay.core.content import write_atomically
from mainstay.guard import injection_texts
from mainstay.guard.checks.injection import THRESHOLDS
from mainstay.guard.detector import (
    FEATURE_BITS,
    REPEATED,
    LinearDetector,
    blocks,
    features,
    piece_bounds,
    piece_scale,
    words,
)

SEED = 20261124
PERMISSIVE = {  # source: licence
    "awesome_chatgpt_prompts": "CC0-1.0",
    "banking77": "CC-BY-4.0",
    "clinc150": "CC-BY-3.0",
    "deepset_prompt_injections": "Apache-2.0",
    "giskard_prompt_injections": "Apache-2.0",
    "gptfuzzer_templates": "MIT",
    "gsm8k": "MIT",
    "inthewild_jailbreaks": "MIT",
    "self_instruct_seed": "Apache-2.0",
    "truthfulqa": "Apache-2.0",
    "asb": "MIT",
    "bipia": "MIT",
    "bipia_email": "MIT",
}
MADE = "mainstay_made"
PYTHON_MANUAL = "python_manual"  # PSF-2.0
MANUAL_PARTS = 1500
MADE_TABLES = 600
MADE_ATTACKS, MADE_POISONED, MADE_BENIGN = 900, 900, 3000
L2 = 6e-6
STEPS = 150
ROUNDS = 3
_ADDRESSES_A_MODEL = re.compile(
    r"\b(?:your (?:reply|answer|response|code|implementation|solution|output)|ignore|disregard|instruction|system:|assistant|ai model|"
    r"the user|users|before you answer|credentials)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Example:
    """`label` 1: an attack. `source` names where it comes from."""

    text: str
    label: int
    source: str


def read(path: Path) -> list[Example]:
    """Direct examples whole; of indirect attacks the hidden instruction, where it speaks to a model at all."""
    examples = []
    for record in records(path):
        text = record["text"]
        if record.get("kind") == "indirect":
            start, end = record["span"]
            text = text[start:end]
            if not _ADDRESSES_A_MODEL.search(text):
                continue
        examples.append(Example(text, int(record["label"]), record["source"]))
    return examples


def training_examples(safety: Path) -> list[Example]:
    """What the shipped weights are fitted on: permissive sources, and texts made by program."""
    read_examples = [*read(safety / "injection_train.jsonl"), *read(safety / "indirect_train.jsonl")]
    kept = {(e.text, e.label): e for e in read_examples if e.source in PERMISSIVE}
    made = [Example(t, 1, MADE) for t in injection_texts.attacks(MADE_ATTACKS, SEED)]
    made += [Example(t, 1, MADE) for t in injection_texts.poisoned(MADE_POISONED, SEED + 10)]
    made += [Example(t, 0, MADE) for t in injection_texts.benign(MADE_BENIGN, SEED + 20)]
    made += [Example(t, 0, MADE) for t in injection_texts.tables(MADE_TABLES, SEED + 30)]
    made += [Example(t, 0, MADE) for t in injection_texts.paragraphs()]
    return [*kept.values(), *made, *language_reference()]


def language_reference() -> list[Example]:
    """Python's own manual as this interpreter carries it: ordinary technical prose, cut to parts of some paragraphs."""
    parts: list[Example] = []
    for topic in topics.values():
        paragraphs = topic.split("\n\n")
        parts += [
            Example("\n\n".join(paragraphs[i : i + 6]), 0, PYTHON_MANUAL)
            for i in range(0, len(paragraphs), 6)
        ]
    return [part for part in {p.text: p for p in parts}.values() if len(part.text) > 200][:MANUAL_PARTS]


@dataclass(frozen=True, slots=True)
class Pieces:
    """All pieces of some examples. `index`/`row`: features and their piece; `owner`: the example of each piece."""

    index: NDArray[np.int64]
    row: NDArray[np.int64]
    owner: NDArray[np.int64]
    scale: NDArray[np.float64]


def cut(examples: Sequence[Example]) -> Pieces:
    index: list[NDArray[np.int64]] = []
    row: list[NDArray[np.int64]] = []
    owner: list[int] = []
    scale: list[float] = []
    for number, example in enumerate(examples):
        for start, end in blocks(example.text):
            tokens, _ = words(example.text[start:end])
            if not tokens:
                continue
            single, pair = features(tokens)
            for first, after in piece_bounds(len(tokens)):
                here = np.concatenate((single[first:after], pair[first : after - 1]))
                index.append(here)
                row.append(np.full(len(here), len(owner)))
                owner.append(number)
                scale.append(float(piece_scale(after - first)))
    return Pieces(np.concatenate(index), np.concatenate(row), np.array(owner), np.array(scale))


def logits(pieces: Pieces, weights: NDArray[np.float64], bias: float) -> NDArray[np.float64]:
    summed = np.bincount(pieces.row, weights=weights[pieces.index], minlength=len(pieces.owner))
    scores: NDArray[np.float64] = bias + summed * pieces.scale
    return scores


def fit(examples: Sequence[Example]) -> tuple[NDArray[np.float64], float]:
    """Logistic regression where an attack counts by its worst piece (Andrews et al. 2003, MI-SVM) and benign text by all.

    Each round fits on the pieces chosen by the last; the first takes every piece of an attack.
    """
    pieces = cut(examples)
    label = np.array([e.label for e in examples])[pieces.owner]
    used, index = np.unique(np.append(REPEATED, pieces.index), return_inverse=True)
    pieces = replace(pieces, index=index[1:])  # REPEATED is 0 in both numberings
    chosen = np.ones(len(label))
    weights, bias = np.zeros(len(used)), 0.0
    for _ in range(ROUNDS):
        share = chosen / np.bincount(pieces.owner, weights=chosen)[pieces.owner]  # an example weighs 1
        share[label == 1] *= (share[label == 0].sum() / share[label == 1].sum()) ** 0.5
        weights, bias = _descend(pieces, label, share / share.sum(), weights, bias)
        scores = logits(pieces, weights, bias)
        best = np.full(len(examples), -np.inf)
        np.maximum.at(best, pieces.owner, scores)
        near_worst = scores >= best[pieces.owner] - 0.5
        chosen = np.where(label == 1, near_worst * 1.0, 0.05 + 1 / (1 + np.exp(-scores)))
    expanded = np.zeros(2**FEATURE_BITS)
    expanded[used] = weights
    return expanded, bias


def _descend(
    pieces: Pieces,
    label: NDArray[np.int64],
    share: NDArray[np.float64],
    weights: NDArray[np.float64],
    bias: float,
) -> tuple[NDArray[np.float64], float]:
    """Adam (Kingma and Ba 2015) on the whole batch, from the given start."""
    state = np.append(weights, bias)
    momentum, variance = np.zeros_like(state), np.zeros_like(state)
    for step in range(1, STEPS + 1):
        error = (1 / (1 + np.exp(-logits(pieces, state[:-1], state[-1]))) - label) * share
        slope = np.bincount(
            pieces.index, weights=(error * pieces.scale)[pieces.row], minlength=len(state) - 1
        )
        slope[REPEATED] = 0.0
        gradient = np.append(slope + L2 * state[:-1], error.sum())
        momentum = 0.9 * momentum + 0.1 * gradient
        variance = 0.99 * variance + 0.01 * gradient**2
        rate = 0.3 * (1 - step / (STEPS + 1))
        state -= rate * (momentum / (1 - 0.9**step)) / (np.sqrt(variance / (1 - 0.99**step)) + 1e-9)
    return state[:-1], float(state[-1])


def worst(examples: Sequence[Example], weights: NDArray[np.float64], bias: float) -> NDArray[np.float64]:
    """The logit of each example's worst piece; the lowest of all for texts without words."""
    pieces = cut(examples)
    scores = logits(pieces, weights, bias)
    best = np.full(len(examples), scores.min())
    np.maximum.at(best, pieces.owner, scores)
    return best


def calibrate(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Slope and offset of Platt's sigmoid by Newton steps, classes weighted equally."""
    share = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
    design = np.column_stack((scores, np.ones_like(scores)))
    answer = np.array([1.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-design @ answer))
        gradient = design.T @ (share * (chance - labels)) + 1e-6 * answer
        hessian = (design * (share * chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        answer = answer - np.linalg.solve(hessian, gradient)
    return float(answer[0]), float(answer[1])


def train(examples: Sequence[Example], folds: int = 5) -> LinearDetector:
    """Fit on all; calibrate on scores of folds left out."""
    labels = np.array([e.label for e in examples])
    fold = np.random.default_rng(SEED).integers(0, folds, len(examples))
    scores = np.zeros(len(examples))
    for number in range(folds):
        inside = [e for e, f in zip(examples, fold, strict=True) if f != number]
        outside = [e for e, f in zip(examples, fold, strict=True) if f == number]
        scores[fold == number] = worst(outside, *fit(inside))
    slope, offset = calibrate(scores, labels)
    weights, bias = fit(examples)
    fitted = LinearDetector(weights.astype(np.float32), bias, slope, offset)
    return LinearDetector.load(fitted.to_bytes())  # measure what is shipped: 8-bit weights


def auroc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney), ties halved."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(labels.sum())
    return float(
        (ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(labels) - positive))
    )


def measure(
    score: Callable[[str], float], examples: Sequence[Example], threshold: float = 0.7
) -> dict[str, float]:
    """AUROC, recall at 1 % false positives, and both rates at the threshold."""
    scores = np.array([score(e.text) for e in examples])
    labels = np.array([e.label for e in examples])
    limit = float(np.quantile(scores[labels == 0], 0.99, method="higher"))
    return {
        "attacks": int(labels.sum()),
        "benign": int((1 - labels).sum()),
        "auroc": round(auroc(scores, labels), 4),
        "recall_at_1_percent": round(float((scores[labels == 1] > limit).mean()), 4),
        "recall_at_threshold": round(float((scores[labels == 1] >= threshold).mean()), 4),
        "false_positives_at_threshold": round(float((scores[labels == 0] >= threshold).mean()), 4),
    }


def data_folder() -> Path:
    return Path(os.environ.get("MAINSTAY_DATA", "../shared/data")) / "safety"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the shipped weights")
    parser.add_argument("--leave-out", help="fit without this source and measure on it")
    asked = parser.parse_args(arguments)
    safety = data_folder()
    if not safety.is_dir():
        sys.stderr.write(f"There is no data in {safety.resolve()}. Set MAINSTAY_DATA.\n")
        return 2
    examples = training_examples(safety)
    if asked.leave_out:
        figures = {asked.leave_out: leave_out(examples, asked.leave_out)}
    else:
        detector = train(examples)
        if asked.write:
            write_atomically(Path(__file__).parent / "data" / "injection.npz", detector.to_bytes())
        figures = {
            "direct": measure(detector.score, read(safety / "injection_dev.jsonl"), THRESHOLDS["input"]),
            "indirect": measure(detector.score, whole(safety / "indirect_dev.jsonl"), THRESHOLDS["context"]),
        }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def leave_out(examples: Sequence[Example], source: str) -> dict[str, float]:
    """Fit without a source and without a fifth of the benign texts; measure on both."""
    fold = np.random.default_rng(SEED).integers(0, 5, len(examples))
    outside = [e.source == source if e.label else f == 0 for e, f in zip(examples, fold, strict=True)]
    inside = [e for e, out in zip(examples, outside, strict=True) if not out]
    weights, bias = fit(inside)
    slope, offset = calibrate(worst(inside, weights, bias), np.array([e.label for e in inside]))
    detector = LinearDetector(weights.astype(np.float32), bias, slope, offset)
    return measure(detector.score, [e for e, out in zip(examples, outside, strict=True) if out])


def whole(path: Path) -> list[Example]:
    """Documents as they come, attacks hidden in them."""
    return [Example(r["text"], int(r["label"]), r["source"]) for r in records(path)]


def records(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:  # not splitlines(): texts hold other line separators
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    sys.exit(main())
