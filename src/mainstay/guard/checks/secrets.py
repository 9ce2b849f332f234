"""Credentials by shape: cloud and API keys, tokens, private keys; and random-looking values after a telling word.

Shapes follow the vendors' documentation of their key formats. Each has a condition that its every match fulfils
from its first character on, and a pattern of what may become a match at the end of a text that still grows; both
are over views (`mainstay.guard.prefilter`), where `?` stands for what is not ASCII.
"""

from __future__ import annotations

import math
import re
import string
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import ClassVar

from mainstay.guard.prefilter import breathe, prefixes, seeds
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks, one_of, patterns, string_list
from mainstay.guard.scan import anchored
from mainstay.guard.types import CheckRule, Rail

_SHAPES: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    # (kind, literals of which the text must hold one, pattern)
    (
        "private_key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]+-----|\Z)"
        ),
    ),
    ("aws_access_key", ("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")),
    (
        "github_token",
        ("gh", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{50,255})"),
    ),
    ("gitlab_token", ("glpat-",), re.compile(r"\bglpat-[\w-]{20,}")),
    ("anthropic_key", ("sk-ant-",), re.compile(r"\bsk-ant-[\w-]{20,}")),
    ("openai_key", ("sk-",), re.compile(r"\bsk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}")),
    ("slack_token", ("xox",), re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("stripe_key", ("k_live_", "k_test_"), re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}")),
    ("google_api_key", ("AIza",), re.compile(r"\bAIza[\w-]{35}")),
    ("mainstay_key", ("ms-",), re.compile(r"\bms-(?=[\w-]{0,80}\d)[A-Za-z0-9_-]{20,}")),
    ("jwt", ("eyJ",), re.compile(r"\beyJ[\w-]{8,2048}+\.eyJ[\w-]{8,}+\.[\w-]{8,}")),
    ("url_password", ("://",), re.compile(r"(?<=://)[^\s:/@]{1,64}:[^\s:/@]{3,128}(?=@)")),
)
# Possessive white space (`*+`): what may be long is read once, so that no text takes more than linear time.
_ASSIGNED = re.compile(
    r"(?:api[ _-]?key|secret|token|password|passwd|pwd|credential|access[ _-]?key|auth(?:orization)?|bearer)"
    r"[\"']?\s*+(?:(?:is|:|=|=>)\s*+)?(?:bearer\s++)?[\"'`]?(?P<value>[A-Za-z0-9+/_=.~!@#$%^&*-]{10,})",
    re.IGNORECASE,
)
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_END = "-----END [A-Z ]+-----"
# White space as `\s` knows it, and what may be such a character outside ASCII.
_SPACE = r"[\s?\x0b\x1c-\x1f]"
_TELLING = (
    r"(?i)(?:api[ _-]?key|secret|token|password|passwd|pwd|credential|access[ _-]?key|auth(?:orization)?|bearer)"
    rf"[\"']?{_SPACE}*(?:(?:is|:|=|=>){_SPACE}*)?(?:bearer{_SPACE}+)?[\"'`]?"
)
_VALUE = "[A-Za-z0-9+/_=.~!@#$%^&*-]"
_CONDITIONS: Mapping[str, str] = {
    "private_key": "-----BEGIN ",
    "aws_access_key": "A[KS]IA[A-Z2-7]{16}",
    "github_token": r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[\w?]{50}",
    "gitlab_token": r"glpat-[\w?-]{20}",
    "anthropic_key": r"sk-ant-[\w?-]{20}",
    "openai_key": "sk-[A-Za-z0-9_-]{20}",
    "slack_token": "xox[abeprs]-[A-Za-z0-9-]{10}",
    "stripe_key": "[rs]k_(?:live|test)_[A-Za-z0-9]{16}",
    "google_api_key": r"AIza[\w?-]{35}",
    "mainstay_key": "ms-[A-Za-z0-9_-]{20}",
    "jwt": r"eyJ[\w?-]{8}",
    "url_password": r"://[^ \t\n\r:/@]{1,64}:[^ \t\n\r:/@]{3}",
    "assigned_secret": _TELLING + _VALUE + "{10}",
}
_OPEN: Mapping[str, str] = {
    "private_key": rf"(?:{prefixes('-----BEGIN ', '[A-Z ]*-*')})\z",
    "aws_access_key": rf"\b(?:{prefixes('A[KS]IA', '[A-Z2-7]*')})\z",
    "github_token": rf"\b(?:{prefixes('gh[pousr]_', '[A-Za-z0-9]*')}|{prefixes('github_pat_', '[0-9A-Za-z_?]*')})\z",
    "gitlab_token": rf"\b(?:{prefixes('glpat-', '[0-9A-Za-z_?-]*')})\z",
    "anthropic_key": rf"\b(?:{prefixes('sk-ant-', '[0-9A-Za-z_?-]*')})\z",
    "openai_key": rf"\b(?:{prefixes('sk-', '[A-Za-z0-9_-]*')})\z",
    "slack_token": rf"\b(?:{prefixes('xox[abeprs]-', '[A-Za-z0-9-]*')})\z",
    "stripe_key": rf"\b(?:{prefixes('[rs]k_live_', '[A-Za-z0-9]*')}|{prefixes('[rs]k_test_', '[A-Za-z0-9]*')})\z",
    "google_api_key": rf"\b(?:{prefixes('AIza', '[0-9A-Za-z_?-]*')})\z",
    "mainstay_key": rf"\b(?:{prefixes('ms-', '[A-Za-z0-9_-]*')})\z",
    "jwt": rf"\b(?:{prefixes('eyJ', '[0-9A-Za-z_?.-]*')})\z",
    "url_password": r"://(?:[^ \t\n\r:/@]+(?::[^ \t\n\r:/@]*)?)?\z",
    "assigned_secret": rf"{_TELLING}{_VALUE}*\z",
}
ENTROPY_BITS_MIN = 3.2
"""Shannon entropy a character of a value must have to look random; English words stay below 3."""
KINDS = (*(kind for kind, _, _ in _SHAPES), "assigned_secret")
_COUNTED = 32_768


def _looks_random(value: str) -> bool:
    value = value.rstrip(".!")
    counts: Counter[str] = Counter()
    for start in range(0, len(value), _COUNTED):
        counts.update(value[start : start + _COUNTED])
        breathe(value)
    if (
        len(value) < 10
        or counts.keys().isdisjoint(string.digits)
        or counts.keys().isdisjoint(string.ascii_letters)
    ):
        return False
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return bits >= ENTROPY_BITS_MIN


@checks.register("secrets")
class Secrets:
    """Options: `kinds` to look for (default all), `allow` patterns that are no finding."""

    name: ClassVar[str] = "secrets"
    order: ClassVar[int] = 10
    scored: ClassVar[bool] = False
    options: ClassVar[Mapping[str, OptionParser]] = {
        **COMMON_OPTIONS,
        "kinds": one_of(*KINDS),
        "allow": patterns,
    }

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        kinds = string_list(rule.options.get("kinds", KINDS))
        allow = string_list(rule.options.get("allow", ()))
        hits = [
            Hit(kind, *match.span(), 1.0, f"[{kind.upper()}]")
            for kind, literals, pattern in _SHAPES
            if kind in kinds and any(literal in text for literal in literals)
            for match in pattern.finditer(text)
        ]
        if "assigned_secret" in kinds:
            hits += _assigned(_ASSIGNED.finditer(text), hits)
        return _not_allowed(text, hits, allow)

    def prepare(self, rail: Rail, rule: CheckRule) -> PreparedSecrets:
        return PreparedSecrets(rule)


class PreparedSecrets:
    """The check with one rule's options; finds what `Secrets.find` finds."""

    def __init__(self, rule: CheckRule) -> None:
        kinds = string_list(rule.options.get("kinds", KINDS))
        self._allow = string_list(rule.options.get("allow", ()))
        self._kinds = tuple(kind for kind in KINDS if kind in kinds)
        self._patterns = {kind: pattern for kind, _, pattern in _SHAPES}
        self.conditions = tuple(_CONDITIONS[kind] for kind in self._kinds)
        self.companions: Mapping[int, str] = {}
        self.open_conditions = tuple(_OPEN[kind] for kind in self._kinds)

    def find(self, text: str, seen: bytes, fired: Sequence[int]) -> list[Hit]:
        kinds = [self._kinds[index] for index in fired]
        hits = [
            Hit(kind, start, end, 1.0, f"[{kind.upper()}]")
            for kind in kinds
            if kind != "assigned_secret"
            for start, end in self._spans(kind, text, seen)
        ]
        if "assigned_secret" in kinds:
            found = anchored(_ASSIGNED, seeds(_CONDITIONS["assigned_secret"]), text, seen)
            hits += _assigned(found, hits)
        return _not_allowed(text, hits, self._allow)

    def _spans(self, kind: str, text: str, seen: bytes) -> Iterator[tuple[int, int]]:
        if kind == "private_key":
            return _private_keys(text, seen)
        skip = 3 if kind == "url_password" else 0
        found = anchored(self._patterns[kind], seeds(_CONDITIONS[kind]), text, seen, skip)
        return (match.span() for match in found)

    def held_from(self, text: str, seen: bytes, fired: Sequence[int]) -> int:
        """A private key is held until its last line; all else has an open pattern of its own."""
        if "private_key" not in (self._kinds[index] for index in fired):
            return len(text)
        return min((start for start, end in _private_keys(text, seen) if end == len(text)), default=len(text))


def _private_keys(text: str, seen: bytes) -> Iterator[tuple[int, int]]:
    begins, ends = seeds(_CONDITIONS["private_key"]), seeds(_END)
    at = 0
    while (place := begins.search(seen, at)) is not None:
        head = _BEGIN.match(text, place[0])
        if head is None:
            at = place[0] + 1
            continue
        end = ends.search(seen, head.end())
        at = len(text) if end is None else end[1]
        breathe(text)
        yield head.start(), at


def _not_allowed(text: str, hits: list[Hit], allow: Sequence[str]) -> list[Hit]:
    if allow:
        hits = [h for h in hits if not any(re.fullmatch(p, text[h.start : h.end]) for p in allow)]
    return sorted(hits, key=lambda hit: hit.start)


def _assigned(matches: Iterator[re.Match[str]], known: list[Hit]) -> list[Hit]:
    known = sorted(known, key=lambda h: h.start)
    starts, reach = [h.start for h in known], list(accumulate((h.end for h in known), max))
    found = []
    for match in matches:
        start, end = match.span("value")
        end -= len(match["value"]) - len(match["value"].rstrip(".!"))
        before = bisect_left(starts, end)
        overlaps = before > 0 and reach[before - 1] > start
        if not overlaps and _looks_random(match["value"]):
            found.append(Hit("assigned_secret", start, end, 0.9, "[SECRET]"))
    return found
