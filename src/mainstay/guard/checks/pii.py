"""Personal data by shape and check digit: e-mail, phone, card, IBAN, US SSN, IP address, national numbers.

Each shape has a condition that every match fulfils from its first character on (an e-mail address: at its `@`), and
patterns of what may become a match at the end of a text that still grows; both are over views
(`mainstay.guard.prefilter`), where `?` stands for what is not ASCII.
Names and street addresses have no shape and are not found.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from mainstay.guard import validators
from mainstay.guard.prefilter import breathing, seeds
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks, one_of, patterns, string_list
from mainstay.guard.scan import windowed
from mainstay.guard.types import CheckRule, Rail

KINDS = ("email", "phone", "credit_card", "iban", "us_ssn", "ip_address", "national_id")

BEFORE, AFTER = 40, 24
"""Characters around a match by which it is judged."""
_PHONE_WORDS = (
    r"(?:phone|mobile|fax|sms|whatsapp|telefon|handy|registered|messages? to"
    r"|(?:my|her|his|our|contact|new) number|\b(?:tel|call|cell|dial|ring|text|reach))\b"
)
_SAID_PHONE = re.compile(_PHONE_WORDS + r"[^\n]{0,24}$", re.IGNORECASE)
_AMOUNT_OR_TIME = re.compile(
    r"^\s?(?:%|€|\$|EUR|USD|GBP|km|m|kg|l|litres?|tons?|tonnes?|hours?|minutes?|days?|pallets?)\b", re.I
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """`needs`: a literal the text must hold. `valid` gets the match and the text before and after it.

    `longest`: characters of the longest match. `condition` begins at most `before` characters after a match does.
    `said`: over the view, words without which `valid` is never true.
    """

    kind: str
    needs: str | None
    pattern: re.Pattern[str]
    valid: Callable[[str, str, str], bool]
    condition: str
    longest: int
    opens: str
    before: int = 0
    said: str | None = None


def _number(check: Callable[[str], bool]) -> Callable[[str, str, str], bool]:
    return lambda found, _before, _after: check(found)


def _said(words: str, check: Callable[[str], bool]) -> Callable[[str, str, str], bool]:
    """Short numbers pass a check digit by chance one time in ten, so their name must stand near."""
    near = re.compile(words, re.IGNORECASE)
    return lambda found, before, after: bool(near.search(before) or near.search(after)) and check(found)


def _ip(found: str, before: str, after: str) -> bool:
    if re.search(r"(?:\bv|version\s*|section\s*|release\s*)$", before, re.I):
        return False
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _loose_phone(found: str, before: str, after: str) -> bool:
    count = len(validators.digits_of(found))
    return 7 <= count <= 13 and bool(_SAID_PHONE.search(before)) and not _AMOUNT_OR_TIME.match(after)


def _shaped_phone(found: str, before: str, after: str) -> bool:
    count = len(validators.digits_of(found))
    return 8 <= count <= 15 and not re.search(r"[\d.,/-]$", before) and not re.match(r"[-/.,]?\d", after)


_NOT_IN_NUMBER_BEFORE, _NOT_IN_NUMBER_AFTER = r"(?<![\w.,/-])(?<!\d )", r"(?![\w/-]|[.,]\d| \d)"
_SHAPES = (
    _Shape(
        "email",
        "@",
        re.compile(r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}"),
        _number(lambda found: ".." not in found and found[0] != "."),
        "[0-9A-Za-z_.!#$%&'*+/=?^`{|}~-]@[0-9A-Za-z?]",
        700,
        "[0-9A-Za-z_.!#$%&'*+/=?^`{|}~-]{1,64}(?:@[0-9A-Za-z_.?-]*)?", 64,
    ),
    _Shape(
        "iban",
        None,
        re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b"),
        _number(validators.iban),
        "[A-Za-z]{2}[0-9]{2} ?[A-Za-z0-9]{4} ?[A-Za-z0-9]{4}",
        43,
        r"\b[A-Za-z]{1,2}|\b[A-Za-z]{2}[0-9]{1,2}(?: ?[A-Za-z0-9]{4}){0,7} ?[A-Za-z0-9]{0,4}",
    ),
    _Shape(
        "credit_card",
        None,
        re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)"),
        _number(validators.card),
        "[0-9](?:[ -]?[0-9]){11}",
        40,
        "(?:[0-9][ -]?){1,19}",
    ),
    _Shape("us_ssn", "-", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _number(validators.us_ssn),
        "[0-9]{3}-[0-9]{2}-[0-9]{4}",
        11,
        "[0-9]{1,3}(?:-[0-9]{0,2}(?:-[0-9]{0,4})?)?",
    ),
    _Shape(
        "us_ssn",
        None,
        re.compile(r"(?<![\w-])\d{3} ?\d{2} ?\d{4}(?![\w-])"),
        _said(r"\bssn\b|social security", validators.us_ssn),
        "[0-9]{3} ?[0-9]{2} ?[0-9]{4}",
        11,
        "(?:[0-9] ?){1,9}",
        said="(?i:ssn|social security)",
    ),
    _Shape(
        "ip_address",
        ".",
        re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)"),
        _ip,
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        15,
        r"[0-9]{1,3}(?:\.[0-9]{0,3}){0,3}",
    ),
    _Shape("ip_address", ":", re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"), _ip,
        "[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:[0-9a-fA-F:]",
        40,
        r"\b[0-9a-fA-F]{1,4}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){1,7}",
    ),
    _Shape("national_id", None, re.compile(r"\b(?:\d{8}|[XYZxyz]-?\d{7})-?[A-Za-z]\b"), _number(validators.spanish_dni),
        "(?:[0-9]{8}|[XYZxyz]-?[0-9]{7})-?[A-Za-z]",
        11,
        r"\b[0-9]{1,8}-?[A-Za-z]?|\b[XYZxyz](?:-?[0-9]{0,7}-?)?[A-Za-z]?",
    ),
    _Shape(
        "national_id",
        None,
        re.compile(r"\b[A-Za-z]{6}\d{2}[A-EHLMPRSTa-ehlmprst]\d{2}[A-Za-z]\d{3}[A-Za-z]\b"),
        _number(validators.italian_codice_fiscale),
        "[A-Za-z]{6}[0-9]{2}[A-Ha-hL-Tl-t][0-9]{2}[A-Za-z][0-9]{3}[A-Za-z]",
        16,
        r"\b[A-Za-z]{1,6}|\b[A-Za-z]{6}[0-9][0-9A-Za-z]{0,9}",
    ),
    _Shape("national_id", ".", re.compile(r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)"), _number(validators.brazilian_cpf),
        r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}",
        14,
        r"(?:[0-9]{1,3}\.?){1,3}(?:-[0-9]{0,2})?",
    ),
    _Shape(
        "national_id",
        None,
        re.compile(r"(?<!\w)\d{11}(?!\w)"),
        _said(r"pesel|\bcpf\b", lambda t: validators.polish_pesel(t) or validators.brazilian_cpf(t)),
        "[0-9]{11}",
        11,
        "[0-9]{1,11}",
        said="(?i:pesel|cpf)",
    ),
    _Shape(
        "national_id",
        None,
        re.compile(r"(?<!\w)\d{4}[ .]?\d{2}[ .]?\d{3}(?!\w)"),
        _said(r"\bbsn\b|burgerservicenummer", validators.dutch_bsn),
        r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}",
        11,
        "(?:[0-9][ .]?){1,9}",
        said="(?i:bsn|burgerservicenummer)",
    ),
    _Shape(
        "national_id",
        None,
        # UK National Insurance number: HMRC NIM39110
        re.compile(r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:\d{2} ?){3}[A-D]\b"),
        _number(lambda _found: True),
        "[A-Z]{2} ?(?:[0-9]{2} ?){3}[A-D]",
        13,
        r"\b[A-Z]{1,2} ?(?:[0-9]{1,2} ?){0,3}[A-D]?",
    ),
    _Shape(  # international, ITU-T E.164
        "phone", "+", re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .()/-]{0,2}\d){6,14}(?!\w)"), _shaped_phone,
        r"\+[0-9]{1,3}(?:[ .()/-]{0,2}[0-9]){6}",
        48,
        r"\+(?:[0-9][ .()/-]{0,2}){0,17}",
    ),
    _Shape(  # North America: (212) 555-0123, 212-555-0123x12, 212.555.0123
        "phone",
        None,
        re.compile(
            r"(?<![\w.-])(?:1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[ .-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?(?!\w|[.-]\d)"
        ),
        _shaped_phone,
        r"(?:1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4}",
        34,
        r"(?:1[ .-]?)?\((?:[0-9]{1,3}(?:\) ?(?:[0-9][ .-]?){0,7})?)?|(?:[0-9][ .-]?){1,18}",
    ),
    _Shape(  # elsewhere: starts with 0 and is written in groups
        "phone",
        None,
        re.compile(
            _NOT_IN_NUMBER_BEFORE
            + r"(?:\(?0\d{1,4}\)?(?:[ ./-]\d{2,4}){2,4}|0\d{2,4}[-/ ]\d{6,8})"
            + _NOT_IN_NUMBER_AFTER
        ),
        lambda found, before, after: 9 <= len(validators.digits_of(found)) <= 12 and not _other_number(found),
        r"\(?0[0-9]{1,4}\)?[ ./-][0-9]{2,4}[ ./-][0-9]{2}|0[0-9]{2,4}[-/ ][0-9]{6}",
        34,
        r"\(?(?:0(?:[0-9]{1,4}\)?)?(?:[ ./-][0-9]{0,4}){0,4}|0[0-9]{2,4}[-/ ][0-9]{0,8})|\(",
    ),
    _Shape(
        "phone",
        None,
        re.compile(_NOT_IN_NUMBER_BEFORE + r"\(?\d{2,5}\)?(?:[ .-]?\d{2,5}){1,4}" + _NOT_IN_NUMBER_AFTER),
        lambda found, before, after: _loose_phone(found, before, after) and not _other_number(found),
        r"\(?[0-9](?:\)?[ .-]?[0-9]){6}",
        36,
        r"\(?[0-9]{1,5}\)?(?:[ .-]?[0-9]{0,5}){0,4}|\(",
        said=f"(?i:{_PHONE_WORDS})",
    ),
)  # fmt: skip


def _other_number(found: str) -> bool:
    """The shape of a US SSN or of a date."""
    return bool(
        re.fullmatch(r"\d{3}-\d{2}-\d{4}|\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}", found)
    )


class _Allowed:
    """Addresses at the organisation's own domains, and what matches an `allow` pattern whole."""

    def __init__(self, rule: CheckRule) -> None:
        self._domains = tuple(d.lower() for d in string_list(rule.options.get("allow_domains", ())))
        sources = string_list(rule.options.get("allow", ()))
        self._patterns = tuple(re.compile(source, re.IGNORECASE) for source in sources)

    def __call__(self, found: str) -> bool:
        domain = found.rpartition("@")[2].lower() if "@" in found else None
        if domain is not None and any(domain == own or domain.endswith("." + own) for own in self._domains):
            return True
        return any(pattern.fullmatch(found) for pattern in self._patterns)


@checks.register("pii")
class Pii:
    """Options: `kinds` to look for (default all), `allow` patterns and `allow_domains` that are no finding."""

    name: ClassVar[str] = "pii"
    order: ClassVar[int] = 20
    scored: ClassVar[bool] = False
    options: ClassVar[Mapping[str, OptionParser]] = {
        **COMMON_OPTIONS,
        "kinds": one_of(*KINDS),
        "allow": patterns,
        "allow_domains": string_list,
    }

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        kinds = string_list(rule.options.get("kinds", KINDS))
        found = ((shape, shape.pattern.finditer(text)) for shape in _possible(text, kinds))
        return _hits(found, text, _Allowed(rule))

    def prepare(self, rail: Rail, rule: CheckRule) -> PreparedPii:
        return PreparedPii(rule)


class PreparedPii:
    """The check with one rule's options; finds what `Pii.find` finds."""

    def __init__(self, rule: CheckRule) -> None:
        kinds = string_list(rule.options.get("kinds", KINDS))
        self._shapes = tuple(shape for shape in _SHAPES if shape.kind in kinds)
        self._allowed = _Allowed(rule)
        self.conditions = tuple(shape.condition for shape in self._shapes)
        said = [shape.said for shape in self._shapes]
        self.companions = {index: words for index, words in enumerate(said) if words is not None}
        self.open_conditions = tuple(rf"(?:{shape.opens})\z" for shape in self._shapes)

    def find(self, text: str, seen: bytes, fired: Sequence[int]) -> list[Hit]:
        shapes = [self._shapes[index] for index in fired]
        found = (
            (s, windowed(s.pattern, seeds(s.condition), text, seen, s.before, s.longest)) for s in shapes
        )
        return _hits(found, text, self._allowed)

    def held_from(self, text: str, seen: bytes, fired: Sequence[int]) -> int:
        """A number is judged by what follows it too: it is held until so much has come."""
        held = len(text)
        for shape in (self._shapes[index] for index in fired):
            if shape.kind != "email":
                start = max(0, len(text) - shape.longest - AFTER - 2)
                place = seeds(shape.condition).search(seen, start)
                held = held if place is None else min(held, place[0])
        return held


def _hits(found: Iterable[tuple[_Shape, Iterator[re.Match[str]]]], text: str, allowed: _Allowed) -> list[Hit]:
    hits: list[Hit] = []
    for shape, matches in found:
        new = list(_valid(shape, matches, text))
        if not new:
            continue
        starts, reach = [h.start for h in hits], list(accumulate((h.end for h in hits), max))
        hits += [h for h in new if not _covered(h, starts, reach) and not allowed(text[h.start : h.end])]
        hits.sort(key=lambda h: h.start)
    return hits


def _covered(hit: Hit, starts: list[int], reach: list[int]) -> bool:
    """Whether a hit of an earlier shape holds this one. `reach`: the furthest end up to each start."""
    before = bisect_right(starts, hit.start)
    return before > 0 and reach[before - 1] >= hit.end


def _possible(text: str, kinds: tuple[str, ...]) -> Iterator[_Shape]:
    """Shapes of these kinds that a cheap look does not rule out."""
    return (s for s in _SHAPES if s.kind in kinds and (s.needs is None or s.needs in text))


def _valid(shape: _Shape, matches: Iterator[re.Match[str]], text: str) -> Iterator[Hit]:
    for match in breathing(matches, text):
        start, end = match.span()
        if shape.valid(match[0], text[max(0, start - BEFORE) : start], text[end : end + AFTER]):
            yield Hit(shape.kind, start, end, 1.0, f"[{shape.kind.upper()}]")
