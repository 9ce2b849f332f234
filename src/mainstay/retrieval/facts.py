"""What a sentence asserts that must not change: numbers, names, negation, and words that have an opposite."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mainstay.retrieval.porter import stem
from mainstay.retrieval.words import FUNCTION_WORDS, content_stems, tokens

_NUMBER = re.compile(
    r"(?<![A-Za-z\d.,])\d+(?:,\d{3})*(?:\.\d+)?(?:(\s?(?:thousand|million|billion|trillion|bn)\b|[km]\b(?!/)))?",
    re.I,
)
_SCALES = {
    "thousand": 10**3, "k": 10**3, "million": 10**6, "m": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12,
}  # fmt: skip
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_UNITS.split())} | {
    word: str(10 * value) for value, word in enumerate(_TENS.split(), start=3)
}
_NOT_COUNTED = frozenset({"one", "zero", "hundred"})
"""Number words that mostly mean something else ("one of", "a hundred"); they match digits, but are not demanded."""

_NEGATIONS = frozenset(
    {"not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "cant", "wont"}
)
_CONTRACTED_NOT = re.compile(r"n['’]t\b", re.I)
_CODE = re.compile(r"(?=\w*\d)(?=\w*[^\W\d_])\w{2,}")
_QUARTER = re.compile(r"[qh][1-4]")
"""Q2 may stand for "the second quarter", so it is no code."""
_CAPITALISED = re.compile(r"\b[A-ZÀ-ÖØ-Þ][\w'’-]*")
_LIST_MARK = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+|\[\d{1,3}\]")

_OPPOSITES = (
    "more/less more/fewer most/least higher/lower high/low highest/lowest increase/decrease increased/decreased "
    "rise/fall rose/fell grow/shrink grew/shrank gain/loss profit/loss before/after early/late earlier/later "
    "first/last old/new older/newer young/old large/small larger/smaller largest/smallest big/small long/short "
    "longer/shorter above/below over/under up/down always/never all/none accept/reject accepted/rejected "
    "allow/forbid allowed/forbidden allowed/prohibited permit/prohibit permitted/prohibited include/exclude "
    "included/excluded inclusive/exclusive approve/deny approved/denied approve/reject agree/disagree "
    "support/oppose supported/opposed win/lose won/lost success/failure succeed/fail succeeded/failed "
    "success/fail easy/difficult easy/hard simple/complex strong/weak fast/slow possible/impossible "
    "legal/illegal public/private internal/external minimum/maximum min/max north/south east/west "
    "northern/southern eastern/western left/right open/closed open/close enabled/disabled enable/disable "
    "start/end begin/end began/ended started/ended join/leave joined/left enter/exit mandatory/optional "
    "required/optional safe/dangerous positive/negative male/female man/woman men/women father/mother "
    "son/daughter brother/sister husband/wife buy/sell bought/sold import/export paid/unpaid full/empty "
    "full/part same/different true/false correct/incorrect valid/invalid better/worse best/worst good/bad "
    "happy/sad rich/poor wide/narrow hot/cold warm/cold wet/dry common/rare often/rarely frequently/rarely "
    "majority/minority many/few major/minor senior/junior import/export ancient/modern domestic/foreign "
    "active/inactive temporary/permanent voluntary/compulsory hire/fire born/died birth/death add/remove "
    "added/removed raise/lower expand/contract expanded/reduced increase/reduce increased/reduced improve/worsen "
    "improved/worsened ascend/descend front/back inside/outside indoor/outdoor day/night morning/evening "
    "am/pm credit/debit encrypted/unencrypted"
)
OPPOSITES: dict[str, frozenset[str]] = {}


def _fill_opposites() -> None:
    for pair in _OPPOSITES.split():
        left, right = (stem(word) for word in pair.split("/"))
        OPPOSITES[left] = OPPOSITES.get(left, frozenset()) | {right}
        OPPOSITES[right] = OPPOSITES.get(right, frozenset()) | {left}


_fill_opposites()


@dataclass(frozen=True, slots=True)
class Facts:
    """One sentence read for comparison. `words` and `stems` are in order; the sets are of canonical forms.

    `numbers`: digits without separators and trailing zeros, scaled ("5 million" is "5000000"); a sentence's
    own digits and codes ("B12"). `number_words`: numbers spelt out. `names`: capitalised words (lower case)
    that do not merely open the sentence.
    """

    words: tuple[str, ...]
    stems: tuple[str, ...]
    numbers: frozenset[str]
    number_words: frozenset[str]
    names: frozenset[str]
    negated: bool

    @property
    def known_numbers(self) -> frozenset[str]:
        return self.numbers | self.number_words


def read_facts(sentence: str) -> Facts:
    sentence = without_list_mark(sentence)
    words = tuple(tokens(sentence))
    return Facts(
        words=words,
        stems=tuple(content_stems(sentence)),
        numbers=_numbers(sentence) | _codes(words),
        number_words=frozenset(NUMBER_WORDS[word] for word in words if word in NUMBER_WORDS),
        names=_names(sentence),
        negated=bool(_CONTRACTED_NOT.search(sentence)) or not _NEGATIONS.isdisjoint(words),
    )


def ends_in_negation(words: str) -> bool:
    """Is the last of these tokens a negation? "don't" is two tokens, `don t`."""
    last = words.split()[-1:]
    return not _NEGATIONS.isdisjoint(last) or last == ["t"]


def without_list_mark(sentence: str) -> str:
    """Without "1.", "-" or "a)" in front and without "[2]": they assert nothing."""
    return _LIST_MARK.sub(" ", sentence).strip()


def demanded_numbers(facts: Facts) -> frozenset[str]:
    """The numbers a source must hold for the sentence to be supported."""
    loose = {NUMBER_WORDS[word] for word in _NOT_COUNTED}
    return facts.numbers | (facts.number_words - loose)


def _numbers(text: str) -> frozenset[str]:
    return frozenset(canonical_number(found[0], found[1]) for found in _NUMBER.finditer(text))


def canonical_number(written: str, scale: str | None) -> str:
    """Digits without separators and trailing zeros; `scale` ("million") may still stand at the end of `written`."""
    plain = written.removesuffix(scale or "").strip().replace(",", "")
    if scale:
        value = float(plain) * _SCALES[scale.strip().lower()]
        return f"{value:.6f}".rstrip("0").rstrip(".")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain.lstrip("0") or "0"


def _codes(words: tuple[str, ...]) -> frozenset[str]:
    """Words of letters and digits that begin with a letter: product codes, form numbers."""
    return frozenset(
        word for word in words if word[0].isalpha() and _CODE.fullmatch(word) and not _QUARTER.fullmatch(word)
    )


def _names(sentence: str) -> frozenset[str]:
    """Capitalised words but the first, which is capitalised anyway."""
    found = list(_CAPITALISED.finditer(sentence))
    opening = len(sentence) - len(sentence.lstrip(" \t\"'“‘(#*-•"))
    names: set[str] = set()
    for match in found:
        if match.start() > opening:
            names.update(word for word in tokens(match[0]) if word not in FUNCTION_WORDS and len(word) > 1)
    return frozenset(names)
