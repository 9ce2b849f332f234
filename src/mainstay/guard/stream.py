"""The output rail over a text that grows: what no check can object to any more passes, the rest is held back."""

from __future__ import annotations

import re
from typing import Protocol

from mainstay.guard.types import Finding, Policy, Rail, Verdict

_END = re.compile(r"[.!?\n](?=\s)|\n")


class TextGuard(Protocol):
    def check(self, text: str, rail: Rail, policy: Policy) -> Verdict: ...


class StreamGuard:
    """One text of one streamed answer. `blocked`: nothing of it may be shown any more."""

    def __init__(self, guard: TextGuard, policy: Policy, rail: Rail = "output") -> None:
        self._guard = guard
        self._policy = policy
        self._rail = rail
        self._held = ""
        self.findings: list[Finding] = []
        self.blocked = False

    def feed(self, text: str) -> str:
        """What may be shown now."""
        self._held += text
        ends = [match.end() for match in _END.finditer(self._held)]
        return self._judged(ends[-1]) if ends else ""

    def finish(self) -> str:
        """The rest, at the end of the text."""
        return self._judged(len(self._held))

    def _judged(self, end: int) -> str:
        piece, self._held = self._held[:end], self._held[end:]
        if not piece or self.blocked:
            return ""
        verdict = self._guard.check(piece, self._rail, self._policy)
        self.findings.extend(verdict.findings)
        self.blocked = verdict.action == "block"
        return "" if self.blocked else verdict.text
