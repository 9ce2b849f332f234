"""What the fitting commands share: where data lies, logistic regression with non-negative weights, AUROC."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mainstay.core.content import write_atomically
from mainstay.core.errors import NotFound

Floats = NDArray[np.float64]
_JSON_STYLE = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


def data_root() -> Path:
    """The folder of public data: MAINSTAY_DATA, or `../shared/data` beside the repository."""
    repository = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("MAINSTAY_DATA") or repository.parent / "shared" / "data")
    if not root.is_dir():
        raise NotFound(f"No data folder at {root}.", fix="Set MAINSTAY_DATA to the folder of public data.")
    return root


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON lines file, gzipped or not."""
    data = path.read_bytes()
    for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
        yield orjson.loads(line)


def read_judgements(path: Path) -> dict[str, set[str]]:
    """Query id → ids of its relevant documents, from a TREC-like table with a header."""
    relevant: dict[str, set[str]] = {}
    for line in path.read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)
    return relevant


def write_weights(name: str, content: Mapping[str, Any]) -> Path:
    """Store `weights/NAME.json` in the package's source folder."""
    path = Path(__file__).parent / "weights" / f"{name}.json"
    write_atomically(path, orjson.dumps(content, option=_JSON_STYLE))
    return path


def auroc(scores: Sequence[float] | Floats, positive: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann & Whitney 1947)."""
    labels = np.asarray(positive, bool)
    _, place, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / pairs)


def sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))), np.float64)


def fit_logistic(
    features: Floats, positive: NDArray[np.bool_], weight: Floats, *, l2: float = 1e-3, steps: int = 800
) -> tuple[Floats, float]:
    """(weights ≥ 0, bias) of a logistic regression on weighted rows.

    Projected accelerated gradient descent (Beck & Teboulle 2009) on the mean log loss + l2/2 |weights|².
    """
    rows = np.column_stack([features, np.ones(len(features))])
    share = weight / weight.sum()
    step = 1 / (0.25 * float(np.linalg.eigvalsh((rows * share[:, None]).T @ rows)[-1]) + l2)
    current = np.zeros(rows.shape[1])
    ahead, momentum = current.copy(), 1.0
    penalty = np.full(rows.shape[1], l2)
    penalty[-1] = 0.0
    for _ in range(steps):
        gradient = rows.T @ (share * (sigmoid(rows @ ahead) - positive)) + penalty * ahead
        following = ahead - step * gradient
        following[:-1] = np.maximum(following[:-1], 0)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / next_momentum * (following - current)
        current, momentum = following, next_momentum
    return current[:-1], float(current[-1])


def equal_weight(groups: Sequence[str], power: float = 1.0) -> Floats:
    """Row weights by which every group counts the same (power 1), or as its size (power 0)."""
    _, place, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(counts[place].astype(np.float64) ** -power)


def best_threshold(scores: Floats, positive: NDArray[np.bool_], families: Sequence[str]) -> float:
    """The score at or above which to say positive: best balanced accuracy, mean over families of data."""
    groups = np.asarray(families)
    cuts = np.unique(scores)
    total = np.zeros(len(cuts))
    for family in sorted(set(families)):
        total += _balanced(scores[groups == family], positive[groups == family], cuts)
    best = int(np.argmax(total))
    return float((cuts[max(best - 1, 0)] + cuts[best]) / 2)


def _balanced(scores: Floats, positive: NDArray[np.bool_], cuts: Floats) -> Floats:
    """Balanced accuracy of `score >= cut`, for every cut."""
    kept = 1 - np.searchsorted(np.sort(scores[positive]), cuts) / max(1, int(positive.sum()))
    caught = np.searchsorted(np.sort(scores[~positive]), cuts) / max(1, int((~positive).sum()))
    return np.asarray((kept + caught) / 2, np.float64)
