"""A policy's rules for one rail, made ready once: sorted, options read, one prefilter for all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mainstay.core.values import value
from mainstay.guard.checks.invisible_unicode import CONTROLS, InvisibleUnicode, hidden_spans, maybe_hidden
from mainstay.guard.prefilter import Prefilter, breathing, prefilter, view
from mainstay.guard.registry import Check, Hit, PreparedCheck, QuickCheck
from mainstay.guard.spans import CleanText, without
from mainstay.guard.types import Action, CheckRule, Rail

_log = logging.getLogger(__name__)


@value
class Seen:
    """One hit, at its place in the original text, with the rule that asked for it."""

    rule: CheckRule
    hit: Hit
    failed: bool = False

    @property
    def action(self) -> Action:
        if not self.failed:
            return self.rule.action
        return "flag" if self.rule.options.get("on_error") == "flag" else "block"


@value
class Look:
    """A text without hidden characters, its view, and which of the plan's conditions hold in it.

    Not `telling`: none of them has its companion, so nothing is found unless the text grows.
    """

    clean: CleanText
    seen: bytes
    fired: Sequence[int]
    hidden: bool
    telling: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """One rule. `first`: the index in the prefilter of the first condition of a prepared check."""

    rule: CheckRule
    check: Check | None
    prepared: PreparedCheck | None
    first: int = 0

    def fired(self, look: Look) -> list[int]:
        count = 0 if self.prepared is None else len(self.prepared.conditions)
        return [index - self.first for index in look.fired if 0 <= index - self.first < count]


class Plan:
    """What `rules` ask for on `rail`. Safe to share between threads."""

    def __init__(self, loaded: Mapping[str, Check], rules: Iterable[CheckRule], rail: Rail) -> None:
        self.rail = rail
        ordered = sorted(rules, key=lambda rule: loaded[rule.check].order if rule.check in loaded else -1)
        conditions = [CONTROLS]
        companions: dict[int, str] = {}
        steps: list[_Step] = []
        for rule in ordered:
            check = loaded.get(rule.check)
            prepared = _prepared(check, rail, rule)
            steps.append(_Step(rule, check, prepared, len(conditions)))
            if prepared is not None:
                companions |= {index + len(conditions): also for index, also in prepared.companions.items()}
                conditions += prepared.conditions
        self.conditions = tuple(conditions)
        self._steps = tuple(steps)
        self._companions = {index: len(conditions) + place for place, index in enumerate(companions)}
        self._prefilter: Prefilter = prefilter((*conditions, *companions.values()))
        # Hidden characters are all that their check looks for; any other without conditions must look itself.
        self._always = any(s.prepared is None and not isinstance(s.check, InvisibleUnicode) for s in steps)

    @property
    def prepared(self) -> list[PreparedCheck]:
        return [step.prepared for step in self._steps if step.prepared is not None]

    def is_stepwise(self, rule: CheckRule) -> bool:
        """Whether the rule's check can judge a text that still grows, and need not wait for whole sentences."""
        step = next(step for step in self._steps if step.rule is rule)
        return step.prepared is not None or isinstance(step.check, InvisibleUnicode)

    def rules_out(self, text: str) -> bool:
        """Whether nothing can be found in `text`, nor in any piece of it that lines end: `find` with one look.
        False where only a closer look would tell."""
        if self._always or (not text.isascii() and maybe_hidden(text)):
            return False
        return not self._tells(self._prefilter.fired(view(text)))

    def find(self, text: str) -> list[Seen]:
        """All hits, check by check."""
        look = self.look(text)
        if not (look.telling or look.hidden or self._always):
            return []
        return self.judge(text, look)

    def _tells(self, fired: Sequence[int]) -> bool:
        """Whether one of these conditions needs no companion, or has it."""
        for index in fired:
            if index < len(self.conditions):
                companion = self._companions.get(index)
                if companion is None or companion in fired:
                    return True
        return False

    def look(self, text: str) -> Look:
        seen = view(text)
        fired = self._prefilter.fired(seen)
        hidden = 0 in fired if text.isascii() else maybe_hidden(text)
        clean = CleanText.whole(text)
        if hidden:
            clean = without(text, hidden_spans(text))
            if clean.text != text:
                seen = view(clean.text)
                fired = self._prefilter.fired(seen)
        own = sorted([index for index in fired if index < len(self.conditions)]) if fired else ()
        return Look(clean, seen, own, hidden, self._tells(fired))

    def judge(self, text: str, look: Look) -> list[Seen]:
        return [seen for step in self._steps for seen in self._apply(step, text, look)]

    def held_from(self, look: Look) -> int:
        """In the cleaned text: where prepared checks may still find what more text would complete."""
        held = len(look.clean.text)
        for step in self._steps:
            if step.prepared is not None and (fired := step.fired(look)):
                held = min(held, step.prepared.held_from(look.clean.text, look.seen, fired))
        return held

    def _apply(self, step: _Step, text: str, look: Look) -> list[Seen]:
        rule = step.rule
        try:
            if step.prepared is not None:
                fired = step.fired(look)
                hits = step.prepared.find(look.clean.text, look.seen, fired) if fired else []
                if not hits:
                    return []
            elif step.check is None:
                raise LookupError(f"no guard check is called {rule.check!r}")  # noqa: TRY301 - recorded below
            elif step.check.order == 0:  # the check for hidden characters must see them
                return [Seen(rule, hit) for hit in step.check.find(text, self.rail, rule)]
            else:
                hits = step.check.find(look.clean.text, self.rail, rule)
            return [Seen(rule, at_origin(hit, look.clean)) for hit in breathing(hits, text)]
        except Exception:  # boundary: whatever a check raises, the text has not been checked
            _log.exception("guard check %s failed on the %s rail", rule.check, self.rail)
            return [Seen(rule, Hit("check_failed", 0, len(text), 1.0, ""), failed=True)]


def _prepared(check: Check | None, rail: Rail, rule: CheckRule) -> PreparedCheck | None:
    if not isinstance(check, QuickCheck):
        return None
    try:
        return check.prepare(rail, rule)
    except Exception:  # boundary: `find` will fail in its turn, and that text counts as not checked
        _log.exception("guard check %s could not be prepared for the %s rail", rule.check, rail)
        return None


def at_origin(hit: Hit, clean: CleanText) -> Hit:
    start, end = clean.original(hit.start, hit.end)
    return Hit(hit.kind, start, end, hit.score, hit.label)
