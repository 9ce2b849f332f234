"""Personal data by shape and check digit: e-mail, phone, card, IBAN, US SSN, IP address, national numbers.

A cheap test for the literal a kind cannot do without (`@`, a digit) comes before each pattern.
Names and street addresses have no shape and are not found.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from mainstay.guard import validators
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks, one_of, patterns, string_list
from mainstay.guard.types import CheckRule, Rail

KINDS = ("email", "phone", "credit_card", "iban", "us_ssn", "ip_address", "national_id")

_DIGIT = re.compile(r"\d")
_SAID_PHONE = re.compile(
    r"(?:phone|telephone|tel|call|mobile|cell|fax|dial|ring|text|sms|whatsapp|(?:my|her|his|our|contact|new) number|telefon|handy|reach|registered|messages? to)\b[^\n]{0,24}$",
    re.IGNORECASE,
)
_AMOUNT_OR_TIME = re.compile(
    r"^\s?(?:%|€|\$|EUR|USD|GBP|km|m|kg|l|litres?|tons?|tonnes?|hours?|minutes?|days?|pallets?)\b", re.I
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """`needs`: a literal the text must hold. `valid` gets the match and the text before and after it."""

    kind: str
    needs: str | None
    pattern: re.Pattern[str]
    valid: Callable[[str, str, str], bool]


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
    ),
    _Shape(
        "iban",
        None,
        re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b"),
        _number(validators.iban),
    ),
    _Shape(
        "credit_card",
        None,
        re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)"),
        _number(validators.card),
    ),
    _Shape("us_ssn", "-", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _number(validators.us_ssn)),
    _Shape(
        "us_ssn",
        None,
        re.compile(r"(?<![\w-])\d{3} ?\d{2} ?\d{4}(?![\w-])"),
        _said(r"\bssn\b|social security", validators.us_ssn),
    ),
    _Shape(
        "ip_address",
        ".",
        re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)"),
        _ip,
    ),
    _Shape("ip_address", ":", re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"), _ip),
    _Shape("national_id", None, re.compile(r"\b(?:\d{8}|[XYZxyz]-?\d{7})-?[A-Za-z]\b"), _number(validators.spanish_dni)),
    _Shape(
        "national_id",
        None,
        re.compile(r"\b[A-Za-z]{6}\d{2}[A-EHLMPRSTa-ehlmprst]\d{2}[A-Za-z]\d{3}[A-Za-z]\b"),
        _number(validators.italian_codice_fiscale),
    ),
    _Shape("national_id", ".", re.compile(r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)"), _number(validators.brazilian_cpf)),
    _Shape(
        "national_id",
        None,
        re.compile(r"(?<!\w)\d{11}(?!\w)"),
        _said(r"pesel|\bcpf\b", lambda t: validators.polish_pesel(t) or validators.brazilian_cpf(t)),
    ),
    _Shape(
        "national_id",
        None,
        re.compile(r"(?<!\w)\d{4}[ .]?\d{2}[ .]?\d{3}(?!\w)"),
        _said(r"\bbsn\b|burgerservicenummer", validators.dutch_bsn),
    ),
    _Shape(
        "national_id",
        None,
        # UK National Insurance number: HMRC NIM39110
        re.compile(r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:\d{2} ?){3}[A-D]\b"),
        _number(lambda _found: True),
    ),
    _Shape(  # international, ITU-T E.164
        "phone", "+", re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .()/-]{0,2}\d){6,14}(?!\w)"), _shaped_phone
    ),
    _Shape(  # North America: (212) 555-0123, 212-555-0123x12, 212.555.0123
        "phone",
        None,
        re.compile(
            r"(?<![\w.-])(?:1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[ .-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?(?!\w|[.-]\d)"
        ),
        _shaped_phone,
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
    ),
    _Shape(
        "phone",
        None,
        re.compile(_NOT_IN_NUMBER_BEFORE + r"\(?\d{2,5}\)?(?:[ .-]?\d{2,5}){1,4}" + _NOT_IN_NUMBER_AFTER),
        lambda found, before, after: _loose_phone(found, before, after) and not _other_number(found),
    ),
)  # fmt: skip


def _other_number(found: str) -> bool:
    """The shape of a US SSN or of a date."""
    return bool(
        re.fullmatch(r"\d{3}-\d{2}-\d{4}|\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}", found)
    )


def _allowed(found: str, rule: CheckRule) -> bool:
    """Addresses at the organisation's own domains, and what matches an `allow` pattern whole."""
    domain = found.rpartition("@")[2].lower() if "@" in found else None
    for own in string_list(rule.options.get("allow_domains", ())):
        if domain is not None and (domain == own.lower() or domain.endswith("." + own.lower())):
            return True
    return any(re.fullmatch(p, found, re.IGNORECASE) for p in string_list(rule.options.get("allow", ())))


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
        hits: list[Hit] = []
        for shape in _possible(text, kinds):
            starts, reach = [h.start for h in hits], list(accumulate((h.end for h in hits), max))
            found = (h for h in _matches(shape, text) if not _covered(h, starts, reach))
            hits += [h for h in found if not _allowed(text[h.start : h.end], rule)]
            hits.sort(key=lambda h: h.start)
        return hits


def _covered(hit: Hit, starts: list[int], reach: list[int]) -> bool:
    """Whether a hit of an earlier shape holds this one. `reach`: the furthest end up to each start."""
    before = bisect_right(starts, hit.start)
    return before > 0 and reach[before - 1] >= hit.end


def _possible(text: str, kinds: tuple[str, ...]) -> Iterator[_Shape]:
    """Shapes of these kinds that a cheap look does not rule out."""
    has_digit = bool(_DIGIT.search(text))
    for shape in _SHAPES:
        if shape.kind not in kinds or (shape.needs is not None and shape.needs not in text):
            continue
        if shape.kind == "email" or has_digit:
            yield shape


def _matches(shape: _Shape, text: str) -> Iterator[Hit]:
    for match in shape.pattern.finditer(text):
        start, end = match.span()
        if shape.valid(match[0], text[max(0, start - 40) : start], text[end : end + 24]):
            yield Hit(shape.kind, start, end, 1.0, f"[{shape.kind.upper()}]")
