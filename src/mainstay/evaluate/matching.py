"""When texts say the same: folded case, space and number marks; quotes found in passages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_THOUSANDS = re.compile(r"(?<=\d)[,'’   ](?=\d{3}(?!\d))")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_WORD = re.compile(r"\d+(?:\.\d+)?|\w+")
ROW_WORDS_MAX = 3
"""A row with its headers has at most this many times the words of its cells."""
OVERLAP_MIN = 0.5
"""Share of a text that must be there where a chunk edge cuts it."""


def fold(text: str) -> str:
    """NFKC, case, white space, dashes and thousands separators folded: `1,000 Kg` and `1000 kg` are equal."""
    folded = _DASHES.sub("-", unicodedata.normalize("NFKC", text).casefold())
    folded = " ".join(folded.replace("’", "'").split())
    return _THOUSANDS.sub("", folded)


_SHORT_WORD = 3


def says(text: str, expected: str) -> bool:
    """Does `text` hold `expected`, from the start of a word or number on?

    `30 min` is not in `130 minutes`, `paid` not in `unpaid`, `no` not in `know` or `not`; but `month` is in
    `months`: what is longer than three letters may be inflected.
    """
    wanted = fold(expected)
    return (
        bool(wanted) and re.search(_edge(wanted) + re.escape(wanted) + _end(wanted), fold(text)) is not None
    )


def _edge(wanted: str) -> str:
    if wanted[0].isdigit():
        return r"(?<!\d)(?<!\d[.,])"
    return "(?<![a-z])" if "a" <= wanted[0] <= "z" else ""


def _end(wanted: str) -> str:
    if wanted[-1].isdigit():
        return r"(?!\d|[.,]\d)"
    return "(?![a-z])" if "a" <= wanted[-1] <= "z" and len(wanted) <= _SHORT_WORD else ""


def fold_space(text: str) -> str:
    return " ".join(text.split())


def overlap(a: str, b: str) -> bool:
    """Is one within the other, or does the end of one run on as the start of the other, by half of the shorter?"""
    a, b = fold_space(a), fold_space(b)
    if not a or not b:
        return False
    return a in b or b in a or _joined(a, b, min(len(a), len(b)))


def holds(passage: str, quote: str) -> bool:
    """Does the passage hold the quote, half of it where a chunk edge cuts it, or its words as a row of a table?"""
    if row_holds(passage, quote):
        return True
    passage, quote = fold_space(passage), fold_space(quote)
    if not passage or not quote:
        return False
    inside = passage in quote and len(passage) >= len(quote) * OVERLAP_MIN
    return quote in passage or inside or _joined(passage, quote, len(quote))


def row_holds(passage: str, quote: str) -> bool:
    """Do the words of the quote stand in their order on one line of the passage, headers or marks between them?

    Documents write a row as `a,b` or `a | b`; canonical text as `first: a; second: b`.
    """
    wanted = _WORD.findall(quote)
    return any(_in_order(wanted, _WORD.findall(line)) for line in passage.splitlines())


def _in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    if not wanted or not len(wanted) <= len(words) <= len(wanted) * ROW_WORDS_MAX:
        return False
    remaining = iter(words)
    return all(word in remaining for word in wanted)


def _joined(a: str, b: str, length: int) -> bool:
    least = max(1, int(length * OVERLAP_MIN))
    return _runs_on(a, b, least) or _runs_on(b, a, least)


def _runs_on(first: str, second: str, least: int) -> bool:
    longest = min(len(first), len(second))
    return any(first.endswith(second[:size]) for size in range(longest, least - 1, -1))


def same_document(place: Mapping[str, Any], document: str) -> bool:
    """Passages and citations name their document under `document` or `uri`; folders before it may be left out."""
    uri = str(place.get("document") or place.get("uri") or "")
    return uri == document or uri.endswith("/" + document)
