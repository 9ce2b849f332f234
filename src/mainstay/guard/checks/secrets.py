"""Credentials by shape: cloud and API keys, tokens, private keys; and random-looking values after a telling word.

Shapes follow the vendors' documentation of their key formats.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks, one_of, patterns, string_list
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
ENTROPY_BITS_MIN = 3.2
"""Shannon entropy a character of a value must have to look random; English words stay below 3."""
KINDS = (*(kind for kind, _, _ in _SHAPES), "assigned_secret")


def _looks_random(value: str) -> bool:
    value = value.rstrip(".!")
    if len(value) < 10 or not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value)):
        return False
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
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
            hits += _assigned(text, hits)
        hits = [h for h in hits if not any(re.fullmatch(p, text[h.start : h.end]) for p in allow)]
        return sorted(hits, key=lambda hit: hit.start)


def _assigned(text: str, known: list[Hit]) -> list[Hit]:
    found = []
    for match in _ASSIGNED.finditer(text):
        start, end = match.span("value")
        end -= len(match["value"]) - len(match["value"].rstrip(".!"))
        overlaps = any(h.start < end and start < h.end for h in known)
        if not overlaps and _looks_random(match["value"]):
            found.append(Hit("assigned_secret", start, end, 0.9, "[SECRET]"))
    return found
