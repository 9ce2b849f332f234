"""Apply a policy to one text on one rail: checks in a fixed order, the severest action wins.

Hidden characters are taken out before the other checks look, so that they cannot split a word; findings
are reported at their place in the text as it came. A check that fails blocks (fail closed) unless its
rule says `on_error: flag`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

from mainstay.guard.checks.invisible_unicode import hidden_spans
from mainstay.guard.plan import Plan, Seen
from mainstay.guard.prefilter import breathing
from mainstay.guard.registry import Check, Hit, checks
from mainstay.guard.spans import covering, mask, without
from mainstay.guard.types import Action, CheckRule, Finding, Policy, Rail, Verdict

SEVERITY: Mapping[Action, int] = {"allow": 0, "flag": 1, "mask": 2, "drop": 3, "block": 4}
EXCERPT_CHARACTERS = 160
_PRIVATE_CHECKS = ("pii", "secrets")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_POLICIES_KEPT = 256
Built = TypeVar("Built")
_Kept = tuple[Policy, dict[tuple[str, Rail], object]]


class Guard:
    """All checks, loaded once; safe to share between threads."""

    def __init__(self, loaded: Mapping[str, Check]) -> None:
        self._checks = loaded
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()
        private = tuple(CheckRule(name, "mask") for name in _PRIVATE_CHECKS if name in loaded)
        self._private = Plan(loaded, private, "output")

    @classmethod
    def load(cls) -> Guard:
        """Load every registered check, third parties' too. Takes some milliseconds."""
        checks.load_entry_points()
        return cls({name: checks.get(name)() for name in checks})

    def check(self, text: str, rail: Rail, policy: Policy) -> Verdict:
        """The verdict on `text`. Its text is empty when it must not be used: blocked, or a dropped passage."""
        if not policy.rails.get(rail):
            return Verdict("allow", text)
        seen = self.cached("check", rail, policy, _whole).find(text)
        if not seen:
            return Verdict("allow", text)
        action = max((s.action for s in seen), key=SEVERITY.__getitem__)
        return Verdict(action, remaining(text, rail, action, seen), self.findings(seen, rail, text))

    def rules_out(self, texts: Iterable[str], rail: Rail, policy: Policy) -> bool:
        """Whether no rule has anything to say of these texts, each by itself: all of them in one look.

        False tells nothing: some need a closer look, which `check` gives.
        """
        if not policy.rails.get(rail):
            return True
        # A condition that holds in a text holds in the lines around it, too.
        return self.cached("check", rail, policy, _whole).rules_out("\n".join(texts))

    def plan_of(self, rules: Iterable[CheckRule], rail: Rail) -> Plan:
        """Some rules made ready, for one who applies them in his own way (`StreamGuard`)."""
        return Plan(self._checks, rules, rail)

    def findings(self, seen: Iterable[Seen], rail: Rail, text: str) -> tuple[Finding, ...]:
        return tuple(self._finding(s, rail, text) for s in breathing(seen, text))

    def cached(
        self, use: str, rail: Rail, policy: Policy, build: Callable[[Guard, Policy, Rail], Built]
    ) -> Built:
        """What `build` made of this very policy for one use, made at most once while the policy is in use."""
        kept = self._kept.get(id(policy))
        if kept is None or kept[0] is not policy:
            kept = self._keep(policy)
        built = kept[1].get((use, rail))
        if built is None:
            built = kept[1][(use, rail)] = build(self, policy, rail)
        return cast(Built, built)

    def _keep(self, policy: Policy) -> _Kept:
        """Holding the policy itself keeps its id from being given to another one."""
        kept: _Kept = (policy, {})
        with self._lock:
            while len(self._kept) >= _POLICIES_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[id(policy)] = kept
        return kept

    def _finding(self, seen: Seen, rail: Rail, text: str) -> Finding:
        hit = seen.hit
        return Finding(
            check=seen.rule.check,
            kind=hit.kind,
            rail=rail,
            action=seen.action,
            score=round(hit.score, 4),
            start=hit.start,
            end=hit.end,
            excerpt="" if seen.failed else self._excerpt(seen, text[hit.start : hit.end]),
        )

    def _excerpt(self, seen: Seen, piece: str) -> str:
        """What people may see of a finding: its label, or the piece with private parts and hidden ones masked."""
        if seen.hit.label and seen.rule.check in _PRIVATE_CHECKS:
            return seen.hit.label
        shown = without(piece, hidden_spans(piece)).text
        hits = [s.hit for s in self._private.find(shown)]
        shown = " ".join(mask(shown, hits).split())
        return shown if len(shown) <= EXCERPT_CHARACTERS else shown[: EXCERPT_CHARACTERS - 1] + "…"


def _whole(guard: Guard, policy: Policy, rail: Rail) -> Plan:
    return guard.plan_of(policy.rails[rail], rail)


def remaining(text: str, rail: Rail, action: Action, seen: Iterable[Seen]) -> str:
    """What may be used of `text` when `action` is the severest of what was seen."""
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
