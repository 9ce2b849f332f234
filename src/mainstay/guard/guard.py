"""Apply a policy to one text on one rail: checks in a fixed order, the severest action wins.

Hidden characters are taken out before the other checks look, so that they cannot split a word; findings
are reported at their place in the text as it came. A check that fails blocks (fail closed) unless its
rule says `on_error: flag`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mainstay.guard.checks.invisible_unicode import hidden_spans
from mainstay.guard.registry import Check, Hit, checks
from mainstay.guard.spans import CleanText, covering, mask, without
from mainstay.guard.types import Action, CheckRule, Finding, Policy, Rail, Verdict

SEVERITY: Mapping[Action, int] = {"allow": 0, "flag": 1, "mask": 2, "drop": 3, "block": 4}
EXCERPT_CHARACTERS = 160
_PRIVATE_CHECKS = ("pii", "secrets")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One hit, at its place in the original text, with the rule that asked for it."""

    rule: CheckRule
    hit: Hit
    failed: bool = False

    @property
    def action(self) -> Action:
        if not self.failed:
            return self.rule.action
        return "flag" if self.rule.options.get("on_error") == "flag" else "block"


class Guard:
    """All checks, loaded once; safe to share between threads."""

    def __init__(self, loaded: Mapping[str, Check]) -> None:
        self._checks = loaded

    @classmethod
    def load(cls) -> Guard:
        """Load every registered check, third parties' too. Takes some milliseconds."""
        checks.load_entry_points()
        return cls({name: checks.get(name)() for name in checks})

    def check(self, text: str, rail: Rail, policy: Policy) -> Verdict:
        """The verdict on `text`. Its text is empty when it must not be used: blocked, or a dropped passage."""
        rules = policy.rails.get(rail, ())
        if not rules:
            return Verdict("allow", text)
        clean = without(text, hidden_spans(text))
        seen = [s for rule in self._in_order(rules) for s in self._apply(rule, rail, text, clean)]
        if not seen:
            return Verdict("allow", text)
        action = max((s.action for s in seen), key=SEVERITY.__getitem__)
        findings = tuple(self._finding(s, rail, text) for s in seen)
        return Verdict(action, _remaining(text, rail, action, seen), findings)

    def _in_order(self, rules: Iterable[CheckRule]) -> list[CheckRule]:
        return sorted(rules, key=lambda r: self._checks[r.check].order if r.check in self._checks else -1)

    def _apply(self, rule: CheckRule, rail: Rail, text: str, clean: CleanText) -> list[_Seen]:
        try:
            check = self._checks[rule.check]
            if check.order == 0:  # the check for hidden characters must see them
                return [_Seen(rule, hit) for hit in check.find(text, rail, rule)]
            return [_Seen(rule, _at_origin(hit, clean)) for hit in check.find(clean.text, rail, rule)]
        except Exception:  # boundary: whatever a check raises, the text has not been checked
            _log.exception("guard check %s failed on the %s rail", rule.check, rail)
            return [_Seen(rule, Hit("check_failed", 0, len(text), 1.0, ""), failed=True)]

    def _finding(self, seen: _Seen, rail: Rail, text: str) -> Finding:
        hit = seen.hit
        return Finding(
            check=seen.rule.check,
            kind=hit.kind,
            rail=rail,
            action=seen.action,
            score=round(hit.score, 4),
            start=hit.start,
            end=hit.end,
            excerpt="" if seen.failed else self._excerpt(seen, rail, text[hit.start : hit.end]),
        )

    def _excerpt(self, seen: _Seen, rail: Rail, piece: str) -> str:
        """What people may see of a finding: its label, or the piece with private parts and hidden ones masked."""
        if seen.hit.label and seen.rule.check in _PRIVATE_CHECKS:
            return seen.hit.label
        shown = without(piece, hidden_spans(piece)).text
        hits: list[Hit] = []
        for name in _PRIVATE_CHECKS:
            if name in self._checks:
                hits += self._checks[name].find(shown, rail, CheckRule(name, "mask"))
        shown = " ".join(mask(shown, hits).split())
        return shown if len(shown) <= EXCERPT_CHARACTERS else shown[: EXCERPT_CHARACTERS - 1] + "…"


def _at_origin(hit: Hit, clean: CleanText) -> Hit:
    start, end = clean.original(hit.start, hit.end)
    return Hit(hit.kind, start, end, hit.score, hit.label)


def _remaining(text: str, rail: Rail, action: Action, seen: Iterable[_Seen]) -> str:
    if action == "block" or (action == "drop" and rail != "output"):
        return ""
    hits = [s.hit for s in seen if s.action == "mask"]
    dropped = [(s.hit.start, s.hit.end) for s in seen if s.action == "drop"]
    if dropped:
        ends = sorted({0, len(text), *(m.end() for m in _SENTENCE_END.finditer(text))})
        hits += [Hit("dropped", start, end, 1.0, "") for start, end in covering(dropped, ends)]
        # A dropped sentence leaves nothing, whatever was masked inside it.
        hits = [h for h in hits if h.kind == "dropped" or not _inside(h, hits)]
    return mask(text, hits)


def _inside(hit: Hit, hits: Iterable[Hit]) -> bool:
    return any(h.kind == "dropped" and h.start < hit.end and hit.start < h.end for h in hits)
