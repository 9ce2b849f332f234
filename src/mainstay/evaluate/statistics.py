"""Means, intervals and paired differences, on NumPy alone; seeded, so the same scores give the same intervals.

Sources: Efron 1979 (bootstrap), Wilson 1927 (interval of a proportion), Conover 1999 ch. 3 (sign test; on
0/1 scores it is McNemar's exact test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mainstay.evaluate.types import Mean

DRAWS = 2_000
SEED = 20_261_124
_CELLS = 500_000
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of b - a over `pairs` cases; `ci95` None below 2 pairs; `nonzero` pairs differ at all.

    `p_sign`: two-sided exact sign test; None when no pair differs.
    """

    value: float | None
    ci95: tuple[float, float] | None
    pairs: int
    nonzero: int
    p_sign: float | None


def mean_ci(
    values: Sequence[float],
    missing: int = 0,
    *,
    shares: bool = True,
    seed: int = SEED,
    draws: int = DRAWS,
) -> Mean:
    """Mean with its 95 % interval: the percentile bootstrap over items, or Wilson's where all values are 0 or 1.

    `shares` says that values lie between 0 and 1 by their nature, as no cost or latency does.
    """
    if not values:
        return Mean(None, 0, missing, None)
    scores = np.asarray(values, dtype=np.float64)
    value = float(scores.mean())
    if len(scores) < 2:
        return Mean(value, len(scores), missing, None)
    if shares and bool(np.isin(scores, (0.0, 1.0)).all()):
        return Mean(value, len(scores), missing, wilson(int(scores.sum()), len(scores)))
    return Mean(value, len(scores), missing, bootstrap_ci(scores, seed=seed, draws=draws))


def bootstrap_ci(scores: NDArray[np.float64], *, seed: int = SEED, draws: int = DRAWS) -> tuple[float, float]:
    """2.5 and 97.5 percentiles of the means of `draws` samples with replacement; `scores` shape (n,), n ≥ 1."""
    random = np.random.default_rng(seed)
    size = len(scores)
    rows = max(1, min(draws, _CELLS // size))  # as many draws at once as fit a few megabytes
    means = np.concatenate(
        [
            scores[random.integers(0, size, (min(rows, draws - at), size))].mean(axis=1)
            for at in range(0, draws, rows)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def wilson(successes: int, count: int, z: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; within [0, 1], and not a point at 0 or 1."""
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    # The limits at 0 and 1 are exact; rounding must not push them out.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == count else min(1.0, centre + half)


def sign_test(rises: int, falls: int) -> float | None:
    """Two-sided exact p of as uneven a split under a fair coin; None when nothing differs."""
    count = rises + falls
    if count == 0:
        return None
    tail = sum(math.comb(count, k) for k in range(min(rises, falls) + 1))
    return min(1.0, float(2 * tail / 2**count))


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, seed: int = SEED, draws: int = DRAWS
) -> Difference:
    """b - a over the same cases in the same order, with a bootstrap over cases. ValueError for unequal lengths."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores cannot be paired with {len(b)}")
    if not a:
        return Difference(None, None, 0, 0, None)
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    rises, falls = int((differences > 0).sum()), int((differences < 0).sum())
    interval = bootstrap_ci(differences, seed=seed, draws=draws) if len(differences) > 1 else None
    return Difference(
        float(differences.mean()), interval, len(differences), rises + falls, sign_test(rises, falls)
    )
