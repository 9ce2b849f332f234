"""The output rail over a text that grows: what no check can object to any more passes, the rest is held back.

Prepared checks tell where a hit may begin that is not whole yet; only the text from there on is held:

- secrets: an unfinished token that begins as a credential does; a telling word (`password`, `bearer`) and what
  follows it, until that is no value; a private key until its last line; a user and password in an address.
- pii: the unfinished last word, up to 64 characters, which an `@` may make an e-mail address; numbers that are
  unfinished, and long ones until the 24 characters have come that they are judged by too.

Other checks (injection, third parties') and rules that drop judge whole sentences: the text is held to the end of
its sentence. Rules that only flag hold nothing; they judge lines and sentences as these end.

The same text in other pieces gives the same, and masks as `Guard.check` of the whole does, with these exceptions:
HOLD_CHARS is the most that is held (what is longer is judged as it stands); numbers that follow each other over
FORGET_CHARS without a word between them may be told apart in another way; marks of direction are judged by
the right-to-left letters up to there; and sentences are judged one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from mainstay.guard.checks.invisible_unicode import HIDDEN_TAIL, maybe_hidden
from mainstay.guard.guard import SEVERITY, Guard, remaining
from mainstay.guard.plan import Look, Plan, Seen
from mainstay.guard.prefilter import Prefilter, prefilter, seeds, view
from mainstay.guard.registry import Hit
from mainstay.guard.types import CheckRule, Finding, Policy, Rail

HOLD_CHARS = 16_384
CONTEXT_CHARS = 128
"""Of what was shown, as much stays to judge what follows by."""
_KEPT_CHARS = 384
_HEAD_CHARS = 2048
FORGET_CHARS = 4096
"""No more than so much of what was shown stays, even where numbers follow each other without a gap."""
_SENTENCE_END = re.compile(r"[.!?]\s|\n")
_SENTENCE = re.compile(r"[.!?]\s+(?=\S)|\n+(?=[^\n])")


class _Parts:
    """A policy's rules for one rail by when they judge: step by step, sentence by sentence, or behind the text."""

    def __init__(self, guard: Guard, policy: Policy, rail: Rail) -> None:
        rules = policy.rails.get(rail, ())
        acting = [rule for rule in rules if rule.action not in ("flag", "allow")]
        watching = [rule for rule in rules if rule.action in ("flag", "allow")]
        plan = guard.plan_of(acting, rail)
        whole = [rule for rule in acting if rule.action == "drop" or not plan.is_stepwise(rule)]
        self.acts = bool(acting)
        self.plan = guard.plan_of([rule for rule in acting if rule not in whole], rail)
        self.sentences = guard.plan_of(whole, rail) if whole else None
        self.watching = guard.plan_of(watching, rail) if watching else None
        opens = [condition for check in self.plan.prepared for condition in check.open_conditions]
        self.quick: Prefilter = prefilter((*self.plan.conditions, *opens))
        self.opens = seeds("|".join(f"(?:{condition})" for condition in opens)) if opens else None


class StreamGuard:
    """One text of one streamed answer. `blocked`: nothing of it may be shown any more.

    `findings` are in the order in which they were made; their offsets are in the whole streamed text.
    """

    def __init__(self, guard: Guard, policy: Policy, rail: Rail = "output") -> None:
        parts = guard.cached("stream", rail, policy, _Parts)
        self._guard = guard
        self._rail = rail
        self._held = _Held(parts, rail) if parts.acts else None
        self._watched = None if parts.watching is None else _Watched(parts.watching)
        self.findings: list[Finding] = []
        self.blocked = False

    def feed(self, text: str, last: bool = False) -> str:
        """What may be shown now."""
        if self.blocked:
            return ""
        if self._watched is not None and (ended := self._watched.add(text, last)) is not None:
            start, piece = ended
            self.record(self._watched.plan.find(piece), piece, start)
        return text if self._held is None else self._held.add(text, last, self)

    def finish(self) -> str:
        """The rest, at the end of the text."""
        return self.feed("", last=True)

    def record(self, seen: Iterable[Seen], text: str, start: int) -> None:
        """`start`: where in the streamed text `text` begins."""
        for seen_one in seen:
            (finding,) = self._guard.findings((seen_one,), self._rail, text)
            self.findings.append(replace(finding, start=finding.start + start, end=finding.end + start))
            self.blocked = self.blocked or seen_one.action == "block"


class _Watched:
    """Text that passed already, until a sentence or a line ends, for rules that only flag."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._text = ""
        self._start = 0

    def add(self, text: str, last: bool) -> tuple[int, str] | None:
        """Where it began, and the sentences that have ended."""
        read = len(self._text)
        self._text += text
        end = _SENTENCE_END.search(self._text, read - 1 if read else 0)
        if end is None and not last and read < HOLD_CHARS:
            return None
        return self._ended(end, last)

    def _ended(self, end: re.Match[str] | None, last: bool) -> tuple[int, str] | None:
        """All sentences up to the last end, of which `end` is the first; the whole text where none has ended."""
        cut = len(self._text)
        if end is not None and not last:
            *_, final = _SENTENCE_END.finditer(self._text, end.start())
            cut = final.end()
        start, piece, self._text = self._start, self._text[:cut], self._text[cut:]
        self._start += cut
        return (start, piece) if piece else None


class _Held:
    """The part of the text that is not judged yet, behind some of what was.

    `_text[:_shown]` was judged; `_text` begins at `_start` of the streamed text.
    """

    def __init__(self, parts: _Parts, rail: Rail) -> None:
        self._rail = rail
        self._plan = parts.plan
        self._sentences = parts.sentences
        self._quick = parts.quick
        self._opens = parts.opens
        self._text = ""
        self._start = self._shown = 0
        self._goes_on = 0

    def add(self, text: str, last: bool, to: StreamGuard) -> str:
        self._text += text
        start = self._shown - CONTEXT_CHARS if self._shown > CONTEXT_CHARS else 0
        tail = self._text[start:]
        if not tail.isascii() and maybe_hidden(tail):
            cut, seen = self._judged(last)
        else:
            viewed = view(tail)
            fired = self._quick.fired(viewed)
            if not fired and self._sentences is None and not self._goes_on:  # nearly every piece
                return self._all_of_it()
            cut, seen = self._known(start, viewed, fired, last)
        if self._sentences is not None and not last:
            cut = self._last_sentence(cut)
        return self._passed(cut, seen, to)

    def _all_of_it(self) -> str:
        """As `_passed`, when nothing was found and nothing is open: then it needs no look to forget, either."""
        piece = self._text[self._shown :]
        self._shown = len(self._text)
        if self._shown > _KEPT_CHARS:
            self._drop_context()
        return piece

    def _known(self, start: int, seen: bytes, fired: list[int], last: bool) -> tuple[int, list[Seen]]:
        """As `_judged`, when it is known which conditions hold in the text from `start` on, seen as `seen`."""
        if not fired:
            return len(self._text), []
        if min(fired) >= len(self._plan.conditions):  # open ones alone: there is no hit
            return (len(self._text) if last else start + self._open_from(seen)), []
        return self._judged(last)

    def _judged(self, last: bool) -> tuple[int, list[Seen]]:
        """Up to where everything is known, and the hits so far."""
        look = self._plan.look(self._text)
        hits = [s for s in self._plan.judge(self._text, look) if s.failed or s.hit.start >= self._shown]
        cut = len(self._text) if last else self._held_from(look)
        return _before(cut, hits), hits

    def _open_from(self, seen: bytes) -> int:
        place = None if self._opens is None else self._opens.search(seen)
        return len(seen) if place is None else place[0]

    def _held_from(self, look: Look) -> int:
        clean = look.clean
        held = min(self._open_from(look.seen), self._plan.held_from(look))
        cut = len(self._text) if held >= len(clean.text) else clean.original(held, held)[0]
        if tail := HIDDEN_TAIL.search(self._text, max(0, len(self._text) - 64)):
            cut = min(cut, tail.start())
        overlong = len(self._text) - self._shown > HOLD_CHARS
        return len(self._text) if overlong else max(cut, self._shown)

    def _last_sentence(self, cut: int) -> int:
        ends = [match.end() for match in _SENTENCE.finditer(self._text, self._shown)]
        if len(self._text) - self._shown > HOLD_CHARS:
            return cut
        return max((end for end in ends if end <= cut), default=self._shown)

    def _passed(self, cut: int, seen: list[Seen], to: StreamGuard) -> str:
        shown = self._shown
        piece = self._text[shown:cut]
        if not piece:
            return ""
        here = [_moved(s, -shown, len(piece)) for s in seen if s.failed or s.hit.end <= cut]
        if self._sentences is not None:
            here += self._sentences.find(piece)
        if self._goes_on:
            piece, here = self._after_goes_on(piece, here)
        if here:
            to.record([s for s in here if s.hit.kind != "goes_on"], piece, self._start + shown)
            action = max((s.action for s in here), key=SEVERITY.__getitem__)
            piece = remaining(piece, self._rail, action, here)
        self._shown = cut
        if cut - shown > HOLD_CHARS and any(s.hit.end == cut - shown for s in here if not s.failed):
            self._go_on(shown, here)
        elif cut > _KEPT_CHARS:
            self._forget()
        return piece

    def _go_on(self, shown: int, here: list[Seen]) -> None:
        """An overlong hit was shown as its label and may not have ended: its head stays, so that the rest is one with it."""
        start = min(s.hit.start for s in here if s.hit.end == self._shown - shown)
        self._goes_on = min(_HEAD_CHARS, self._shown - shown - start)
        head = self._text[shown + start : shown + start + self._goes_on]
        self._start += len(self._text) - len(head)
        self._text, self._shown = head, 0

    def _after_goes_on(self, piece: str, here: list[Seen]) -> tuple[str, list[Seen]]:
        """The head is no text to show, and the hit was recorded."""
        whole = [s for s in here if s.hit.start == 0 and not s.failed]
        gone = max((s.hit.end for s in whole), default=self._goes_on)
        self._goes_on = 0
        label = Hit("goes_on", 0, gone, 1.0, "")
        first = whole[0] if whole else Seen(CheckRule("secrets", "mask"), label)
        return piece, [replace(first, hit=label), *(s for s in here if s.hit.start >= gone or s.failed)]

    def _forget(self) -> None:
        """Where nothing is open no match goes over, and what is before matters as context alone."""
        if self._shown < FORGET_CHARS and self._is_open(
            self._text[self._shown - CONTEXT_CHARS : self._shown]
        ):
            return
        self._drop_context()

    def _drop_context(self) -> None:
        at = self._shown - CONTEXT_CHARS
        at = max(self._text.rfind(" ", 0, at), self._text.rfind("\n", 0, at), at - CONTEXT_CHARS)
        self._text = self._text[at:]
        self._start += at
        self._shown -= at

    def _is_open(self, text: str) -> bool:
        look = self._plan.look(text)
        held = min(self._open_from(look.seen), self._plan.held_from(look))
        return held < len(look.seen)


def _before(cut: int, hits: list[Seen]) -> int:
    """No hit may go over the cut."""
    over = [s.hit.start for s in hits if s.hit.start < cut < s.hit.end and not s.failed]
    return _before(min(over), hits) if over else cut


def _moved(seen: Seen, by: int, length: int) -> Seen:
    hit = seen.hit
    start, end = (0, length) if seen.failed else (hit.start + by, hit.end + by)
    return replace(seen, hit=replace(hit, start=start, end=end))
