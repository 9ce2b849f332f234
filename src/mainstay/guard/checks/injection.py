"""Instructions to the model where only data or an ordinary request should be; a trained linear detector.

What it was trained on, what it measures and misses: docs/reference/injection-detector.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from mainstay.guard.detector import LinearDetector, Piece
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks
from mainstay.guard.types import CheckRule, Rail

THRESHOLDS: Mapping[Rail, float] = {"input": 0.7, "context": 0.9, "output": 0.9}
"""Where a rule sets none. A good passage wrongly dropped costs an answer, and nobody sees it: so the bar is higher
for the context. The card shows both errors at other thresholds."""

SUSPECT = 0.3
"""A sentence of a hit that scores below this alone is ordinary text beside the instruction."""

_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+|\n+|(?:<!--|-->)\s*")


@checks.register("injection")
class Injection:
    """Scores pieces of at most 40 words; each hit is a run of pieces that reach the threshold.

    A hit is fitted to whole sentences: ordinary ones at its two ends, which only shared a piece with the
    instruction, are left out of it, provided that what remains of the text no longer reaches the threshold.
    """

    name: ClassVar[str] = "injection"
    order: ClassVar[int] = 30
    scored: ClassVar[bool] = True
    options: ClassVar[Mapping[str, OptionParser]] = COMMON_OPTIONS

    def __init__(self) -> None:
        self._detector = LinearDetector.load()

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        threshold = THRESHOLDS[rail] if rule.threshold is None else rule.threshold
        pieces = self._detector.pieces(text, threshold)
        fitted = [self._fitted(text, piece) for piece in pieces]
        if fitted and self._detector.score(_without(text, fitted)) >= threshold:
            fitted = pieces
        return [Hit("injection", p.start, p.end, p.probability, "[INSTRUCTION]") for p in fitted]

    def _fitted(self, text: str, piece: Piece) -> Piece:
        """The piece from the first to the last of its sentences that is suspect by itself; else as it was."""
        sentences = [s for s in _sentences(text) if s[0] < piece.end and s[1] > piece.start]
        suspect = [s for s in sentences if self._detector.score(text[s[0] : s[1]]) >= SUSPECT]
        if not suspect:
            return piece
        return Piece(suspect[0][0], suspect[-1][1], piece.probability)


def _sentences(text: str) -> list[tuple[int, int]]:
    bounds = [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]
    spans = ((start, start + len(text[start:end].rstrip())) for start, end in pairwise(bounds))
    return [span for span in spans if span[0] < span[1]]


def _without(text: str, pieces: Sequence[Piece]) -> str:
    at, kept = 0, []
    for piece in pieces:
        kept.append(text[at : piece.start])
        at = max(at, piece.end)
    return " ".join([*kept, text[at:]])
