"""The rule of facts: each clause of a sentence must have one source sentence that holds its facts and says the rest.

Likeness over a whole sentence cannot see that one number was taken from another sentence, that the month was
changed but not the day, or that "part-time" was put for "full-time". So every clause with amounts, dates or labels
needs one source sentence that holds all of them, most of the clause's content words, and no opposite of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mainstay.retrieval.facts import OPPOSITES, Facts
from mainstay.retrieval.porter import stem
from mainstay.retrieval.quantities import Exact, holds_exactly, read_exact
from mainstay.retrieval.sentences import is_title
from mainstay.retrieval.support_features import Sources, SourceSentence
from mainstay.retrieval.words import FUNCTION_WORDS, tokens

COVER_MIN = 0.6
"""Share of a clause's content words that the source sentence must hold."""
COVER_OF_BEST_MIN = 0.7
"""And of what the source sentence nearest in words holds: the facts must stand where the rest is said."""
_COVER_FOR_OPPOSITE = 0.75
_DUTY = frozenset({"must", "may"})
_WORDS_OWN_MIN = 2
_BOUNDARY = re.compile(
    r"\s*[;—]\s*|\s+–\s+|\.\s+(?=[A-Z])"
    r"|,\s+(?=(?:and|but|while|whereas|or|so|then|although|however|which|who|with|compared)\b)"
    r"|\s+(?=(?:and|but|while|whereas)\s)",
)
_LIGHT_WORDS = (
    "up until till most least must may shall will would should can could might need within every each per get gets also only about "
    "just all any both more than other"
)
_LIGHT_STEMS = frozenset(stem(word) for word in _LIGHT_WORDS.split())
"""Words that a paraphrase changes freely."""
_IRREGULAR = (
    "send/sent pay/paid hold/held keep/kept give/gave/given make/made take/took/taken tell/told write/wrote/written "
    "begin/began/begun go/went/gone come/came see/saw/seen know/knew/known find/found leave/left lose/lost "
    "buy/bought sell/sold build/built bring/brought choose/chose/chosen wear/wore/worn drive/drove/driven "
    "speak/spoke/spoken break/broke/broken become/became grow/grew/grown fall/fell/fallen rise/rose/risen "
    "run/ran win/won meet/met lead/led spend/spent say/said do/did/done think/thought teach/taught"
)
_FORMS = {
    stem(form): frozenset(stem(other) for other in forms.split("/"))
    for forms in _IRREGULAR.split()
    for form in forms.split("/")
}
"""Forms of a verb that stemming does not bring together."""
_POINTS_BACK = re.compile(
    r"\W*(?:it|they|this|that|these|those|he|she|its|their|such|then|otherwise)\b", re.I
)


@dataclass(frozen=True, slots=True)
class _Clause:
    """`stems`: content words that are neither facts nor auxiliary."""

    stems: frozenset[str]
    exact: Exact
    codes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the whole sentence says, which holds for each of its clauses: its words, and what its labels number."""

    words: frozenset[str]
    labels: dict[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Held:
    """`holder`: the source sentence that holds most facts, None when some clause's facts have no source."""

    facts: int
    holder: SourceSentence | None


def hold_facts(text: str, facts: Facts, sources: Sources) -> Held:
    """Finds the source of each clause's facts, first for the sentence as one clause, then clause by clause."""
    whole = _clause(text, facts)
    if not _demands(whole) or not sources.sentences:
        return Held(0, None)
    frame = _Frame(_own_forms(facts), whole.exact.labels)
    found = _holder(whole, frame, sources)
    if found is not None:
        return Held(_count(whole), found)
    parts = _clauses(text, facts)
    if len(parts) < 2:
        return Held(_count(whole), None)
    held = [(part, _holder(part, frame, sources)) for part in parts if _demands(part)]
    if not held or any(holder is None for _, holder in held):
        return Held(_count(whole), None)
    return Held(_count(whole), max(held, key=lambda one: _count(one[0]))[1])


def _clause(text: str, facts: Facts) -> _Clause:
    """Reads a sentence, or a part of it; `facts` are those of the sentence."""
    exact = read_exact(text)
    words = tokens(text)
    spent = {stem(word) for word in exact.spent} | _LIGHT_STEMS
    stems = {stem(word) for word in words if word not in FUNCTION_WORDS} - spent
    codes = frozenset(word for word in facts.numbers & frozenset(words) if word[0].isalpha())
    compared = frozenset(one for one in stems if not one.isdigit() and not (len(one) == 1 and one.isascii()))
    return _Clause(compared - codes, exact, codes)


def _clauses(text: str, facts: Facts) -> list[_Clause]:
    """The parts of a sentence, each with words of its own; a part with too few belongs to the one before it."""
    parts: list[str] = []
    for piece in filter(str.strip, _BOUNDARY.split(text)):
        if parts and min(_own_words(piece, facts), _own_words(parts[-1], facts)) < _WORDS_OWN_MIN:
            parts[-1] = f"{parts[-1]} {piece}"
        else:
            parts.append(piece)
    return [_clause(part, facts) for part in parts]


def _own_words(text: str, facts: Facts) -> int:
    clause = _clause(text, facts)
    return len(clause.stems | clause.codes)


def _demands(clause: _Clause) -> bool:
    return clause.exact.demands or bool(clause.codes)


def _count(clause: _Clause) -> int:
    return clause.exact.count + len(clause.codes)


def _holder(clause: _Clause, frame: _Frame, sources: Sources) -> SourceSentence | None:
    """The sentence with the clause's facts and most of its words, no heading; None when its facts stand elsewhere."""
    covers = [_cover(clause.stems, at, sources) for at in range(len(sources.sentences))]
    least = max(COVER_MIN, COVER_OF_BEST_MIN * max(covers))
    order = sorted(range(len(covers)), key=lambda at: (-covers[at], at))
    for at in order:
        if covers[at] < least:
            break
        if not is_title(sources.texts[at]) and _holds(clause, frame, at, sources):
            return sources.sentences[at]
    return None


def _cover(stems: frozenset[str], at: int, sources: Sources) -> float:
    if not stems:
        return 1.0
    sentence = sources.sentences[at]
    held = sentence.stems | sources.context_stems[sentence.passage]
    before = _before(at, sources)
    if before is not None:
        held |= before.stems
    return sum(not _FORMS.get(one, frozenset((one,))).isdisjoint(held) for one in stems) / len(stems)


def _before(at: int, sources: Sources) -> SourceSentence | None:
    """The sentence that "it" or "they" at the beginning of this one speaks of."""
    if at == 0 or not _POINTS_BACK.match(sources.texts[at]):
        return None
    before = sources.sentences[at - 1]
    return before if before.passage == sources.sentences[at].passage else None


def _holds(clause: _Clause, frame: _Frame, at: int, sources: Sources) -> bool:
    sentence = sources.sentences[at]
    context = sources.context_numbers[sentence.passage]
    numbers = sentence.facts.known_numbers | context
    exact = sources.exact(at)
    if not clause.codes <= numbers | frozenset(sentence.facts.words):
        return False
    if says_opposite(frame.words, sentence.facts) or not _labels_agree(frame, exact):
        return False
    return holds_exactly(clause.exact, exact, numbers)


def _labels_agree(frame: _Frame, source: Exact) -> bool:
    """A sentence on severity 2 takes nothing from a source sentence on severity 1 alone."""
    theirs = source.labels
    return all(values & theirs[label] for label, values in frame.labels.items() if label in theirs)


def _own_forms(facts: Facts) -> frozenset[str]:
    return frozenset(facts.words) | {stem(word) for word in facts.words}


def says_opposite(own: frozenset[str], source: Facts) -> bool:
    """Has the claim one word of a contrasted pair, and the source the other one alone?"""
    there = frozenset(source.words) | frozenset(source.stems)
    return any(OPPOSITES.get(one, frozenset()) & there - own for one in own - there)


def says_opposite_of_nearest(facts: Facts, covers: Sequence[float], sources: Sources) -> bool:
    """Does the source sentence nearest in words say the opposite, while no other one near says the same?"""
    best = max(covers)
    if best < _COVER_FOR_OPPOSITE:
        return False
    own = _own_forms(facts)
    near = [
        one for one, cover in zip(sources.sentences, covers, strict=True) if cover >= COVER_OF_BEST_MIN * best
    ]
    return all(says_opposite(own, one.facts) or _duty_swapped(facts, one.facts) for one in near)


def _duty_swapped(claim: Facts, source: Facts) -> bool:
    """ "must" for "may" or the other way round; "must not" and "may not" are alike."""
    if claim.negated or source.negated:
        return False
    ours, theirs = (_DUTY & frozenset(one.words) for one in (claim, source))
    return len(ours) == len(theirs) == 1 and ours != theirs
