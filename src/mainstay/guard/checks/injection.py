"""Instructions to the model where only data or an ordinary request should be; a trained linear detector.

What it was trained on, what it measures and misses: docs/reference/injection-detector.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mainstay.guard.detector import LinearDetector
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks
from mainstay.guard.types import CheckRule, Rail

THRESHOLDS: Mapping[Rail, float] = {"input": 0.7, "context": 0.9, "output": 0.9}
"""Where a rule sets none. A good passage wrongly dropped costs an answer, and nobody sees it: so the bar is higher
for the context. The card shows both errors at other thresholds."""


@checks.register("injection")
class Injection:
    """Scores pieces of at most 40 words; each hit is a run of pieces that reach the threshold."""

    name: ClassVar[str] = "injection"
    order: ClassVar[int] = 30
    scored: ClassVar[bool] = True
    options: ClassVar[Mapping[str, OptionParser]] = COMMON_OPTIONS

    def __init__(self) -> None:
        self._detector = LinearDetector.load()

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        threshold = THRESHOLDS[rail] if rule.threshold is None else rule.threshold
        return [
            Hit("injection", piece.start, piece.end, piece.probability, "[INSTRUCTION]")
            for piece in self._detector.pieces(text, threshold)
        ]
