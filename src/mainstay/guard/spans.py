"""Span arithmetic: text without some characters with a way back, and masking of overlapping spans."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from mainstay.core.values import value
from mainstay.guard.registry import Hit


@value
class CleanText:
    """`text` is the original without the removed spans; `original(start, end)` maps a span back."""

    text: str
    _starts: tuple[int, ...]
    _shifts: tuple[int, ...]

    @classmethod
    def whole(cls, text: str) -> CleanText:
        """`text`, from which nothing was removed."""
        return cls(text, (0,), (0,))

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The smallest original span that holds text[start:end]; hidden characters inside count."""
        if end <= start:
            return self._back(start), self._back(start)
        return self._back(start), self._back(end - 1) + 1

    def _back(self, position: int) -> int:
        return position + self._shifts[bisect_right(self._starts, position) - 1]


def without(text: str, removed: Sequence[tuple[int, int]]) -> CleanText:
    """Remove sorted, disjoint spans."""
    pieces: list[str] = []
    starts, shifts = [0], [0]
    at = length = gone = 0
    for start, end in removed:
        pieces.append(text[at:start])
        length += start - at
        gone += end - start
        at = end
        starts.append(length)
        shifts.append(gone)
    pieces.append(text[at:])
    return CleanText("".join(pieces), tuple(starts), tuple(shifts))


def mask(text: str, hits: Iterable[Hit]) -> str:
    """Replace each group of overlapping hits by the label of its longest visible member."""
    pieces: list[str] = []
    at = 0
    for start, end, label in _merged(hits):
        pieces += (text[at:start], label)
        at = end
    return "".join([*pieces, text[at:]])


def _merged(hits: Iterable[Hit]) -> list[tuple[int, int, str]]:
    groups: list[list[Hit]] = []
    reach = -1
    for hit in sorted(hits, key=lambda h: (h.start, -h.end)):
        if groups and hit.start < reach:
            groups[-1].append(hit)
        else:
            groups.append([hit])
        reach = max(reach, hit.end)
    return [(group[0].start, max(h.end for h in group), _label(group)) for group in groups]


def _label(group: Sequence[Hit]) -> str:
    return max(group, key=lambda hit: (bool(hit.label), hit.end - hit.start)).label


def covering(spans: Iterable[tuple[int, int]], inside: Sequence[int]) -> list[tuple[int, int]]:
    """The unions of the intervals between `inside` boundaries that the spans touch, sorted and disjoint."""
    touched = [(low, high) for low, high in pairwise(inside) if any(s < high and e > low for s, e in spans)]
    joined: list[tuple[int, int]] = []
    for low, high in touched:
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined
