"""What of a sentence can be checked exactly: amounts with their units, dates, weekdays, times, rates, labels.

English unit and calendar words; digits and signs of any language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mainstay.retrieval.facts import NUMBER_WORDS, canonical_number

_TOKEN = re.compile(
    r"(?P<iso>(?<!\d)\d{4}-(?P<iso_month>\d\d)-(?P<iso_day>\d\d)(?!\d))"
    r"|(?P<time>(?<![\d:.,])(?P<hour>\d{1,2})(?:[:.](?P<minute>\d\d))?\s?(?P<half>[ap])\.?m\b\.?)"
    r"|(?P<clock>(?<![\d:])\d{1,2}:\d\d(?!\d))"
    r"|(?P<number>(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?)"
    r"(?P<scale>\s?(?:thousand|million|billion|trillion|bn)\b|[km]\b(?!/))?(?P<ordinal>st|nd|rd|th)?"
    r"|(?P<word>[^\W\d_]+)|(?P<sign>[%€$£°])|(?P<pause>[,;:()])",
    re.I,
)
_MONTHS = "january february march april may june july august september october november december"
_MONTH_OF = {name: f"{at:02}" for at, name in enumerate(_MONTHS.split(), start=1)}
_MONTH_OF |= {name[:3]: value for name, value in _MONTH_OF.items()} | {"sept": "09"}
_ALSO_VERBS = frozenset(
    {"may", "march", "mar", "dec", "jan", "jun", "jul", "oct", "nov", "feb", "apr", "aug"}
)
"""Month names that stand for a month only with a day or a year, or behind a word of time."""
_WORDS_OF_TIME = "in by until till since from of before after during on through to and early late mid"
_BEFORE_MONTH = frozenset(_WORDS_OF_TIME.split())
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_WEEKDAYS = frozenset(_DAYS.split())
_COUNTED_PLACES = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ORDINALS = {word: str(at) for at, word in enumerate(_COUNTED_PLACES.split(), start=3)}
_UNIT_WORDS = (
    "time:second,seconds,sec,secs time:minute,minutes,min,mins time:hour,hours,h,hr,hrs time:day,days "
    "time:week,weeks time:fortnight,fortnights time:month,months time:year,years,yr,yrs share:percent,%,pct "
    "money:eur,euro,euros,€ money:usd,dollar,dollars,$ money:gbp,pound,pounds,£ money:cent,cents "
    "length:metre,metres,meter,meters,m length:kilometre,kilometres,kilometer,kilometers,km "
    "length:centimetre,centimetres,centimeter,centimeters,cm length:millimetre,millimetres,mm length:mile,miles "
    "mass:kilogram,kilograms,kilo,kilos,kg mass:gram,grams,g mass:tonne,tonnes,ton,tons,t "
    "volume:litre,litres,liter,liters,l heat:degree,degrees,° data:mb,megabyte,megabytes data:gb,gigabyte,gigabytes "
    "data:kb,kilobyte,kilobytes data:tb,terabyte,terabytes"
)
_UNIT_OF: dict[str, tuple[str, str]] = {
    word: (kind, words.split(",")[0])
    for kind, words in (entry.split(":") for entry in _UNIT_WORDS.split())
    for word in words.split(",")
}
"""Written unit → (kind of quantity, the unit's one name)."""
_BESIDE_NUMBERS_ONLY = frozenset({"h", "m", "g", "t", "l", "min", "sec", "second", "pound", "ton"})
_RATE_WORDS = {
    "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annual": "year", "annually": "year",
    "hourly": "hour",
}  # fmt: skip
_RATE_OPENERS = frozenset({"per", "a", "an", "each", "every"})
_COUNTS = {"once": "1", "twice": "2"}
_WORDS_BEFORE_NUMBERS = (
    "the a an of in on at by to for from with within after before until under over about than only and or is "
    "are was were be at least most every each per up all any that least exactly nearly around between"
)
_NO_LABEL = frozenset(_WORDS_BEFORE_NUMBERS.split())


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number (canonical), its unit and the unit's kind where it has one, else the word it numbers ("severity")."""

    value: str
    unit: str | None
    kind: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Exact:
    """`calendar`: "09-30" and "09", "friday", "22:00". `rates`: units of "a week", "daily". `letters`: ("class", "b").

    `spent`: words that are part of these and are not compared as words.
    """

    quantities: tuple[Quantity, ...]
    calendar: frozenset[str]
    rates: frozenset[str]
    letters: frozenset[tuple[str, str]]
    spent: frozenset[str]

    @property
    def demands(self) -> bool:
        """Whether there is anything that a source must hold to the letter."""
        return bool(self.quantities or self.calendar or self.letters)

    @property
    def labels(self) -> dict[str, frozenset[str]]:
        """What each label numbers: {"severity": {"1"}, "class": {"b"}}."""
        pairs = [(one.label, one.value) for one in self.quantities if one.label is not None]
        found: dict[str, frozenset[str]] = {}
        for label, value in (*pairs, *self.letters):
            found[label] = found.get(label, frozenset()) | {value}
        return found

    @property
    def count(self) -> int:
        return len(self.quantities) + len(self.calendar) + len(self.letters)


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    value: str


def read_exact(text: str) -> Exact:
    tokens = list(_tokens(text))
    quantities: list[Quantity] = []
    calendar: set[str] = set()
    rates: set[str] = set()
    letters: set[tuple[str, str]] = set()
    spent: set[str] = set()
    for at, token in enumerate(tokens):
        if token.kind == "calendar":
            calendar.update({token.value, token.value[:2]} if token.text == "iso" else {token.value})
        elif token.kind == "number":
            quantity, used = _quantity(tokens, at)
            quantities.append(quantity)
            spent.update(used)
        elif token.kind == "word":
            lower = token.text.lower()
            months = _month(tokens, at)
            calendar.update(months)
            if months or lower in _WEEKDAYS:
                spent.add(lower)
            if lower in _WEEKDAYS:
                calendar.add(lower)
            rates.update(_rate(tokens, at))
            if _is_letter(tokens, at):
                letters.add((tokens[at - 1].text.lower(), lower))
    return Exact(
        tuple(quantities), frozenset(calendar), frozenset(rates), frozenset(letters), frozenset(spent)
    )


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found["iso"]:
            yield _Token("calendar", "iso", f"{found['iso_month']}-{found['iso_day']}")
        elif found["time"]:
            hour = int(found["hour"]) % 12 + (12 if found["half"].lower() == "p" else 0)
            yield _Token("calendar", "time", f"{hour:02}:{found['minute'] or '00'}")
        elif found["clock"]:
            yield _Token("calendar", "time", found["clock"].rjust(5, "0"))
        elif found["number"]:
            yield _Token("number", found["number"], canonical_number(found["number"], found["scale"]))
        elif found["word"]:
            yield _worded(found["word"])
        else:
            yield _Token("sign" if found["sign"] else "pause", found[0], "")


def _worded(word: str) -> _Token:
    lower = word.lower()
    counted = _COUNTS.get(lower) or _ORDINALS.get(lower)
    if counted is None and lower not in ("one", "zero", "hundred"):
        counted = NUMBER_WORDS.get(lower)
    return _Token("word", word, "") if counted is None else _Token("number", lower, counted)


def _quantity(tokens: list[_Token], at: int) -> tuple[Quantity, set[str]]:
    """The number at `at` with the unit behind it (one word may stand between: "3 working days"), or before it."""
    token = tokens[at]
    used = {token.text.lower()}
    if token.text in _COUNTS:  # "twice a year": the unit is a rate
        return Quantity(token.value, None, None, None), used
    for step in (1, 2):
        if at + step >= len(tokens) or tokens[at + step].kind not in ("word", "sign"):
            break
        written = tokens[at + step].text.lower()
        unit = _UNIT_OF.get(written)
        if unit is not None and (step == 1 or written not in _BESIDE_NUMBERS_ONLY):
            between = {tokens[at + near].text.lower() for near in range(1, step)}
            return Quantity(token.value, unit[1], unit[0], None), used | {written} | between
        if written in _NO_LABEL:
            break
    before = tokens[at - 1] if at else None
    if before is None or before.kind not in ("word", "sign"):
        return Quantity(token.value, None, None, None), used
    word = before.text.lower()
    unit = _UNIT_OF.get(word)
    if unit is not None and unit[0] == "money":
        return Quantity(token.value, unit[1], unit[0], None), used | {word}
    label = word if before.kind == "word" and word not in _NO_LABEL and word not in _MONTH_OF else None
    return Quantity(token.value, None, None, label), used


def _month(tokens: list[_Token], at: int) -> set[str]:
    """The month at `at`, and month with day where a day stands beside it."""
    month = _MONTH_OF.get(tokens[at].text.lower())
    if month is None or not tokens[at].text[0].isupper():
        return set()
    day = _day(tokens, at - 1) or _day(tokens, at - 2, over="of") or _day(tokens, at + 1)
    if day is not None:
        return {month, f"{month}-{day}"}
    near_number = any(0 <= near < len(tokens) and tokens[near].kind == "number" for near in (at - 1, at + 1))
    led = at > 0 and tokens[at - 1].text.lower() in _BEFORE_MONTH
    return {month} if near_number or led or tokens[at].text.lower() not in _ALSO_VERBS else set()


def _day(tokens: list[_Token], at: int, over: str | None = None) -> str | None:
    if not 0 <= at < len(tokens) or tokens[at].kind != "number" or not tokens[at].value.isdigit():
        return None
    if over is not None and tokens[at + 1].text.lower() != over:
        return None
    day = int(tokens[at].value)
    return f"{day:02}" if 1 <= day <= 31 else None


def _rate(tokens: list[_Token], at: int) -> set[str]:
    """ "a week", "per calendar month", "daily": the unit; empty for other words."""
    word = tokens[at].text.lower()
    if word in _RATE_WORDS:
        return {_RATE_WORDS[word]}
    if word not in _RATE_OPENERS:
        return set()
    for near in tokens[at + 1 : at + 3]:
        unit = _UNIT_OF.get(near.text.lower()) if near.kind == "word" else None
        if unit is not None and unit[0] == "time" and near.text.lower() not in _BESIDE_NUMBERS_ONLY:
            return {unit[1]}
    return set()


def _is_letter(tokens: list[_Token], at: int) -> bool:
    """Does one capital letter label the word before it ("class B")?"""
    text = tokens[at].text
    if at == 0 or len(text) != 1 or not text.isupper() or text == "I":
        return False
    before = tokens[at - 1]
    return before.kind == "word" and len(before.text) > 2 and before.text.lower() not in _NO_LABEL


def holds_exactly(claim: Exact, source: Exact, numbers: frozenset[str]) -> bool:
    """Does a source hold every date, amount and label of a claim? `numbers`: all numbers that stand in the source.

    A number of the source without a unit may take the claim's unit, as in a table, unless the source gives
    another amount of that kind.
    """
    if not claim.calendar <= source.calendar or not _same_labels(claim.letters, source.letters):
        return False
    if claim.rates and source.rates and not claim.rates & source.rates:
        return False
    return all(_holds(quantity, source, numbers) for quantity in claim.quantities)


def _same_labels(claim: frozenset[tuple[str, str]], source: frozenset[tuple[str, str]]) -> bool:
    named = {word for word, _ in source}
    return all(label in source or label[0] not in named for label in claim)


def _holds(claim: Quantity, source: Exact, numbers: frozenset[str]) -> bool:
    alike = [one for one in source.quantities if one.value == claim.value]
    if not alike and claim.value not in numbers:
        return False
    if claim.kind is not None:
        units = {one.unit for one in alike if one.kind == claim.kind}
        if units:
            return claim.unit in units
        return not any(one.kind == claim.kind for one in source.quantities)
    if claim.label is not None:
        labelled = {one.value for one in source.quantities if one.label == claim.label}
        return not labelled or claim.value in labelled
    return True
