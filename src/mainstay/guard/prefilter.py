"""One linear pass that rules out most checks: necessary conditions of their patterns, matched together by RE2.

RE2 (Cox 2010, "Regular Expression Matching in the Wild") takes linear time and releases the interpreter's lock
while it reads, so that a long text does not hold up other threads. Conditions are matched against a *view*: the
text as ASCII bytes, one for each character, in which `?` stands for any character outside ASCII. A condition
that may meet such a character therefore names `?`, and a position in the view is one in the text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import re2

Item = TypeVar("Item")
LONG_TEXT = 32_768
"""Texts longer than this are looked at in windows, between which other threads may run."""
WINDOW = 1024
_PAUSE_S = 0.000_05
_TRANSLATE_PIECE = 16_384
_END = r"\z"

_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1
_OPTIONS.never_capture = True
_OPTIONS.log_errors = False


def _as_ascii() -> dict[int, str]:
    """What the patterns' `\\d` and their ignored case take for an ASCII character: decimal digits, ı İ ſ K."""
    digits = {code: str(int(chr(code))) for code in range(0x80, sys.maxunicode + 1) if chr(code).isdecimal()}
    return {**digits, 0x130: "i", 0x131: "i", 0x17F: "s", 0x212A: "k"}


_AS_ASCII = _as_ascii()
_LOOK_ALIKES = re2.compile("[" + "".join(map(chr, _AS_ASCII)) + "]")


def view(text: str) -> bytes:
    """`text` as one ASCII byte a character; digits of other scripts as 0 to 9, all else outside ASCII as `?`."""
    if text.isascii():
        return text.encode()
    if _LOOK_ALIKES.search(text.encode("utf-8", "replace")):
        pieces = []
        for start in range(0, len(text), _TRANSLATE_PIECE):
            pieces.append(text[start : start + _TRANSLATE_PIECE].translate(_AS_ASCII))
            breathe(text)
        text = "".join(pieces)
    return text.encode("ascii", "replace")


def breathe(text: str) -> None:
    """Let another thread run, between two windows of a long text."""
    if len(text) > LONG_TEXT:
        time.sleep(_PAUSE_S)


def breathing(items: Iterable[Item], text: str) -> Iterator[Item]:
    """The items, with a pause after every so many when the text is long."""
    for index, item in enumerate(items):
        if index % 128 == 127:
            breathe(text)
        yield item


class Prefilter:
    """Which of some conditions hold somewhere in a view."""

    def __init__(self, conditions: Sequence[str]) -> None:
        patterns = re2.Set.SearchSet(_OPTIONS)
        # The end always matches: a set that does not report it could not be matched, and rules out nothing.
        # (An empty pattern would match as well, but at every byte, and RE2 would note it at every byte.)
        for condition in (*conditions, _END):
            patterns.Add(condition.encode("ascii"))
        patterns.Compile()
        self._always = len(conditions)
        self._nothing = [self._always]
        self._all = list(range(len(conditions)))
        self._match = patterns.Match

    def fired(self, seen: bytes) -> list[int]:
        """Indexes of the conditions that hold; empty for a text in which nothing can be found."""
        matched: list[int] | None = self._match(seen)
        if matched == self._nothing:
            return []
        if matched is None or self._always not in matched:
            return self._all
        matched.remove(self._always)
        return matched


@lru_cache(maxsize=64)
def prefilter(conditions: tuple[str, ...]) -> Prefilter:
    """Compiled once for each set of conditions, which is the same for many policies."""
    return Prefilter(conditions)


class Seeds:
    """Where one condition holds, or one of several written as alternatives."""

    def __init__(self, condition: str) -> None:
        self._pattern = re2.compile(condition.encode("ascii"), _OPTIONS)

    def search(self, seen: bytes, start: int = 0) -> tuple[int, int] | None:
        """The leftmost place at or after `start`."""
        match = self._pattern.search(seen, start)
        return None if match is None else match.span()


@lru_cache(maxsize=256)
def seeds(condition: str) -> Seeds:
    return Seeds(condition)


def prefixes(literal: str, then: str = "") -> str:
    """A pattern of every beginning of `literal`, and of the whole followed by `then`.

    `literal` may hold classes (`[rs]`), each of which counts as one character.
    """
    parts = list(_characters(literal))
    pattern = then
    for part in reversed(parts):
        pattern = f"{part}(?:{pattern})?" if pattern else part
    return pattern


def _characters(literal: str) -> Iterable[str]:
    at = 0
    while at < len(literal):
        end = literal.index("]", at) if literal[at] == "[" else at
        yield literal[at : end + 1]
        at = end + 1
