"""Checks an answer while it streams: sentence by sentence, against the policy and against the sources.

A sentence is shown once it is complete, guarded and scored. Citation markers a model wrote itself are
taken out: numbers are given here, to exact spans whose quote was found again in the stored document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from mainstay.guard.types import Finding, GroundingRule, Policy, Rail, Verdict
from mainstay.retrieval import PassageSources, cite, is_title, split_sentences, verify_citation
from mainstay.retrieval.types import Citation, Passage, Support

# A run of white space is tried from its first character only: from each, a long run would take quadratic time.
_MARKER = re.compile(r"(?<!\s)\s*\[\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*\]")

_SOURCES = r"(?:sources?|passages?|documents?|handbook|manual|text|context|information|excerpts?)"
_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_SOURCES}\b[^.!?]{{0,40}}\b(?:do(?:es)? not|don['’]t|doesn['’]t|did not|cannot)\b[^.!?]{{0,20}}"
        r"\b(?:say|state|mention|contain|provide|specify|answer|cover|include|address|tell|give|have)\b",
        r"\bI (?:do not|don['’]t) (?:know|have)\b",
        r"\bI(?: am|['’]m)? (?:cannot|can['’]t|unable to|not able to|could not|couldn['’]t) (?:answer|find|say|tell)\b",
        rf"\b(?:not|nowhere|never) (?:mentioned|stated|specified|found|given|provided|covered)\b[^.!?]{{0,30}}\b{_SOURCES}\b",
        rf"\bno (?:information|answer|mention)\b[^.!?]{{0,60}}\b{_SOURCES}\b",
    )
)


_LIST_NUMBER = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)")


class RailGuard(Protocol):
    def check(self, text: str, rail: Rail, policy: Policy) -> Verdict: ...


class SupportScorer(Protocol):
    """Retrieval's GroundingScorer; passages are read once for all sentences of an answer."""

    def support_in(self, sentence: str, ready: PassageSources) -> Support: ...


VersionText = Callable[[str], str]
"""The canonical text of a document version by its id; called off the event loop."""


def is_refusal(text: str, policy: Policy) -> bool:
    """Whether a text says that the sources hold no answer: the policy's own words, or common English forms."""
    said = " ".join(text.split())
    if said.casefold().strip(" .") == policy.grounding.refusal.casefold().strip(" ."):
        return True
    return len(said) <= 400 and any(pattern.search(said) for pattern in _REFUSALS)


def without_instructions(passage: Passage, findings: Sequence[Finding]) -> Passage:
    """The passage with spaces where an instruction to the model was masked: it must not support an answer.

    Offsets stay as they are, so that what is cited beside it is still found in the document.
    """
    text = passage.text
    for finding in findings:
        if finding.check == "injection" and finding.action == "mask":
            blank = " " * (finding.end - finding.start)
            text = text[: finding.start] + blank + text[finding.end :]
    return replace(passage, text=text)


_ORDINARY_CHARACTERS = 500
"""Sentences up to this length are cut as soon as they are complete."""


class SentenceCutter:
    """Cuts a growing text into complete sentences, each with what stands before it.

    With `drop_markers`, citation markers such as `[1]` are taken out; without, gaps, sentences and
    `tail` together are the text, character by character.
    """

    def __init__(self, drop_markers: bool) -> None:
        self._drop_markers = drop_markers
        self._buffer = ""
        self._look_at = 0

    def feed(self, text: str) -> list[tuple[str, str]]:
        """(gap, sentence) of every sentence that is complete now: another one has begun behind it."""
        self._buffer += text
        if len(self._buffer) < self._look_at:
            return []
        self._take_out_markers()
        done = self._cut(split_sentences(self._buffer)[:-1])
        # What goes on without an end, like code, is looked at again only when it has grown by an eighth: to look
        # at every word of it takes quadratic time, on the event loop.
        waits = len(self._buffer)
        self._look_at = waits + waits // 8 if waits > _ORDINARY_CHARACTERS else 0
        return done

    def rest(self) -> list[tuple[str, str]]:
        """What is left when the text is at its end."""
        self._take_out_markers()
        return self._cut(split_sentences(self._buffer))

    @property
    def tail(self) -> str:
        """After `rest`: what stands behind the last sentence, without letters or digits (a closing fence)."""
        return self._buffer

    def _take_out_markers(self) -> None:
        if self._drop_markers:
            self._buffer = _MARKER.sub("", self._buffer)

    def _cut(self, spans: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
        done, at = [], 0
        for start, end in spans:
            done.append((self._buffer[at:start], self._buffer[start:end]))
            at = end
        self._buffer = self._buffer[at:]
        return done


@dataclass(frozen=True, slots=True)
class Judged:
    """One sentence after guard and scoring. `citation` (unnumbered) is set only when `supported`."""

    text: str
    outcome: Literal["supported", "unsupported", "refusal", "plain", "dropped", "blocked"]
    citation: Citation | None = None
    score: float | None = None
    findings: tuple[Finding, ...] = ()


class SentenceJudge:
    """Guards and scores one sentence; CPU work, to be run off the event loop.

    Without passages nothing is scored: sentences are `plain`.
    """

    def __init__(
        self,
        guard: RailGuard,
        policy: Policy,
        passages: Sequence[Passage],
        scorer: SupportScorer,
        version_text: VersionText,
    ) -> None:
        self._guard = guard
        self._policy = policy
        self._passages = passages
        self._scorer = scorer
        self._version_text = version_text
        self._ready: PassageSources | None = None
        self._texts: dict[str, str] = {}

    def __call__(self, sentence: str) -> Judged:
        verdict = self._guard.check(sentence, "output", self._policy)
        text = verdict.text.strip()
        if verdict.action == "block":
            return Judged("", "blocked", findings=verdict.findings)
        if not text:
            return Judged("", "dropped", findings=verdict.findings)
        if not self._passages:
            return Judged(text, "plain", findings=verdict.findings)
        return replace(self._scored(text), findings=verdict.findings)

    def _scored(self, text: str) -> Judged:
        if is_title(text):
            return Judged(text, "unsupported", score=0.0)
        self._ready = self._ready or PassageSources(self._passages)
        support = self._scorer.support_in(text, self._ready)
        found = support.passage is not None and support.start is not None
        if found and support.score >= self._policy.grounding.threshold:
            citation = cite(support, self._passages)
            if _is_heading(citation):
                return Judged(text, "unsupported", score=support.score)
            # A citation is shown only if its quote stands in the stored document at its very place.
            if verify_citation(citation, self._stored(citation.version_id)):
                return Judged(text, "supported", citation, support.score)
        if is_refusal(text, self._policy):
            return Judged(text, "refusal", score=support.score)
        return Judged(text, "unsupported", score=support.score)

    def _stored(self, version_id: str) -> str:
        """The version's text, read once for all sentences of an answer."""
        if version_id not in self._texts:
            self._texts[version_id] = self._version_text(version_id)
        return self._texts[version_id]


def _is_heading(citation: Citation) -> bool:
    """A section's title states nothing: repeating it answers no question, however exact the copy."""
    quote = citation.quote.strip()
    return is_title(quote) or quote.lstrip("# ") in citation.heading_path


class Numbering:
    """Numbers citations from 1 in order of appearance; the same source span keeps its number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int, int], Citation] = {}

    def number(self, citation: Citation) -> int:
        span = (citation.version_id, citation.start, citation.end)
        if span not in self._numbers:
            self._numbers[span] = replace(citation, number=len(self._numbers) + 1)
        return self._numbers[span].number

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(self._numbers.values())


class GroundedText:
    """Decides what of a judged answer is shown, and when.

    With the rules `flag` and `remove`, nothing is shown before `min_supported_sentences` are supported:
    until then the whole answer may still be replaced. With `keep`, grounding only marks: all is shown.
    """

    def __init__(self, rule: GroundingRule, numbering: Numbering) -> None:
        self._rule = rule
        self._numbering = numbering
        self._waiting: list[tuple[str, Judged]] = []
        self._shown = False
        self._said: set[str] = set()
        self.supported = 0
        self.scored = 0
        self.refusals = 0
        self.plain = 0
        self.blocked = False
        self.removed: list[str] = []
        self.flagged: list[str] = []
        self.findings: list[Finding] = []

    @property
    def enough(self) -> bool:
        """Whether the answer may stand."""
        if self.plain or (self._rule.unsupported == "keep" and self.scored + self.refusals > 0):
            return True
        return self.supported >= max(1, self._rule.min_supported_sentences) or (
            self._rule.min_supported_sentences == 0 and self.scored > len(self.removed)
        )

    @property
    def supported_share(self) -> float | None:
        return self.supported / self.scored if self.scored else None

    def take(self, gap: str, judged: Judged) -> str:
        """Account for one sentence; gives the text to show now, which may be none, or earlier ones too."""
        self.findings.extend(judged.findings)
        if judged.outcome == "blocked":
            self.blocked = True
            return ""
        if judged.outcome == "dropped":
            return ""
        if self._rule.unsupported == "remove":  # a list with holes keeps no numbers
            judged = replace(judged, text=_LIST_NUMBER.sub("", judged.text))
            if self._said_before(judged):
                return ""
        self._count(judged)
        if judged.outcome == "unsupported" and self._rule.unsupported == "remove":
            self.removed.append(judged.text)
            return ""
        self._waiting.append((gap, judged))
        return self.flush() if self.enough else ""

    def cut_off(self, judged: Judged) -> None:
        """The output limit ended this sentence in its middle: half a sentence states nothing. It is told as removed,
        as the output rail lets it be told."""
        self.findings.extend(judged.findings)
        if judged.outcome not in ("blocked", "dropped"):
            self.removed.append(judged.text)

    def _said_before(self, judged: Judged) -> bool:
        """Small models repeat themselves; a supported sentence is shown and counted once."""
        if judged.outcome != "supported":
            return False
        words = " ".join(judged.text.casefold().split())
        repeated = words in self._said
        self._said.add(words)
        return repeated

    def flush(self) -> str:
        """Show all that waits."""
        return "".join(self._show())

    def discard(self) -> list[str]:
        """Give up what waits; gives the sentences that were not shown."""
        waiting, self._waiting = self._waiting, []
        return [judged.text for _, judged in waiting]

    def _show(self) -> Iterator[str]:
        waiting, self._waiting = self._waiting, []
        for gap, judged in waiting:
            yield (gap or " ") if self._shown else ""
            self._shown = True
            yield judged.text
            if judged.citation is not None:
                yield f" [{self._numbering.number(judged.citation)}]"
            elif judged.outcome == "unsupported" and self._rule.unsupported == "flag":
                self.flagged.append(judged.text)

    def _count(self, judged: Judged) -> None:
        self.plain += judged.outcome == "plain"
        self.refusals += judged.outcome == "refusal"
        self.supported += judged.outcome == "supported"
        self.scored += judged.outcome in ("supported", "unsupported")
