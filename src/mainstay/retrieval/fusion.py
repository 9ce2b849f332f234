"""Join ranked lists by their scores, each scaled to 0-1 within its list (min-max), not by rank.

Scores keep what ranks throw away: how clearly a list prefers its best. Where one side is weak, rank fusion
gives it an equal vote and loses much; scaled scores lose little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Ranked = Sequence[tuple[int, float]]
"""(row, score), best first."""


def scale(ranked: Ranked, *, complete: bool = False) -> dict[int, float]:
    """Scores scaled so that the list's best is 1 and its worst 0.

    `complete`: the list holds every row that scores above zero, so zero is the worst instead.
    """
    if not ranked:
        return {}
    high = ranked[0][1]
    low = min(0.0, high) if complete else ranked[-1][1]
    spread = high - low
    if spread <= 0:
        return {row: 1.0 for row, _ in ranked}
    return {row: (score - low) / spread for row, score in ranked}


def fuse(dense: Mapping[int, float], lexical: Mapping[int, float], dense_weight: float) -> Ranked:
    """Weighted sum of scaled scores, best first; a row missing from a list counts 0 there. Ties by row."""
    joined = {
        row: dense_weight * dense.get(row, 0.0) + (1 - dense_weight) * lexical.get(row, 0.0)
        for row in dense.keys() | lexical.keys()
    }
    return sorted(joined.items(), key=lambda item: (-item[1], item[0]))
