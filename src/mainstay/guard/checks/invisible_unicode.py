"""Characters nobody sees but a model reads: zero width, tag, bidi controls, variation selector runs.

Sources: Unicode 16 (Default_Ignorable_Code_Point), UTS #51 (emoji sequences), UTS #39 §3.1.1 (join controls
in context), Boucher and Anderson 2021, "Trojan Source" (bidi controls).
Kept: joiners in emoji and in the scripts that need them, flags made of tags, one variation selector after a
visible character, marks and isolates for direction where the text holds right-to-left letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import ClassVar

import re2

from mainstay.guard.prefilter import LONG_TEXT, breathe
from mainstay.guard.registry import COMMON_OPTIONS, Hit, OptionParser, checks
from mainstay.guard.types import CheckRule, Rail

_SUSPECT_CLASS = (
    "[\x00-\x08\x0b\x0e-\x1f\x7f\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e0fff\u00ad]"
)
_MAYBE_HIDDEN = re2.compile(_SUSPECT_CLASS)
_SUSPECT = re.compile(_SUSPECT_CLASS.replace("\u00ad", "") + "+")
HIDDEN_TAIL = re.compile(_SUSPECT_CLASS + r"+\Z")
"""At the end of a text: what the next character may still make part of an emoji, or of one run."""
CONTROLS = r"[\x00-\x08\x0b\x0e-\x1f\x7f]"
"""All of them that ASCII has, for a prefilter."""
_SOFT_HYPHEN = re.compile("\u00ad+")
_FLAG_TAGS = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u0e80-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
_EMOJI = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff\ufe0f]")


def _kind(character: str) -> str:
    code = ord(character)
    if 0xE0000 <= code <= 0xE007F:
        return "tag_characters"
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return "variation_selectors"
    if 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x061C, 0x200E, 0x200F):
        return "bidi_controls"
    if code < 0x20 or code == 0x7F:
        return "control_characters"
    return "zero_width"


def _allowed(character: str, before: str, after: str, right_to_left: bool) -> bool:
    code = ord(character)
    if code == 0x200D and before and _EMOJI.match(before) and after and _EMOJI.match(after):
        return True
    if code in (0x200C, 0x200D):
        return bool(before and _JOINING.match(before))
    if 0xFE00 <= code <= 0xFE0F:
        return bool(before) and not before.isspace() and unicodedata.category(before) not in ("Cf", "Mn")
    if 0xE0100 <= code <= 0xE01EF:
        return bool(before) and unicodedata.name(before, "").startswith("CJK")
    if code in (0x061C, 0x200E, 0x200F) or 0x2066 <= code <= 0x2069:
        return right_to_left
    return 0x180B <= code <= 0x180F and bool(before) and "\u1800" <= before <= "\u18af"


def _spans(text: str) -> list[tuple[int, int, str]]:
    """Sorted, disjoint (start, end, kind) of the characters that have no business here."""
    right_to_left = any(_RIGHT_TO_LEFT.search(text, start, end) for start, end in _windows(text))
    found: list[tuple[int, int, str]] = []
    for run in _runs(text):
        at = run.start()
        flag = _FLAG_TAGS.match(text, at)
        if flag and at and text[at - 1] == "\U0001f3f4":
            at = flag.end()
        elif at == 0 and text[0] == "\ufeff":
            at = 1  # a byte order mark
        while at < run.end():
            before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
            if not _allowed(text[at], before, after, right_to_left):
                _extend(found, at, _kind(text[at]))
            at += 1
    return found


def _windows(text: str) -> Iterator[tuple[int, int]]:
    for start in range(0, len(text), LONG_TEXT):
        breathe(text)
        yield start, min(start + LONG_TEXT, len(text))


def _runs(text: str) -> Iterator[re.Match[str]]:
    """The runs of characters to look at; one that goes over a window's end is taken whole."""
    done = 0
    for start, end in _windows(text):
        for found in _SUSPECT.finditer(text, max(start, done), end):
            run = _SUSPECT.match(text, found.start()) if found.end() == end else found
            if run is not None:
                yield run
                done = run.end()


def maybe_hidden(text: str) -> bool:
    """Whether a character is there that may have to be taken out; one quick pass."""
    if text.isascii() and text.isprintable():
        return False
    return bool(_MAYBE_HIDDEN.search(text.encode("utf-8", "replace")))


def _extend(found: list[tuple[int, int, str]], at: int, kind: str) -> None:
    if found and found[-1][1] == at and found[-1][2] == kind:
        found[-1] = (found[-1][0], at + 1, kind)
    else:
        found.append((at, at + 1, kind))


def hidden_spans(text: str) -> list[tuple[int, int]]:
    """What to take out before other checks look: hidden characters, and soft hyphens, which also split words."""
    if not maybe_hidden(text):
        return []
    spans = [(start, end) for start, end, _ in _spans(text)]
    if "\u00ad" in text:
        spans = sorted(spans + [m.span() for m in _SOFT_HYPHEN.finditer(text)])
    return spans


@checks.register("invisible_unicode")
class InvisibleUnicode:
    """Masking removes the characters. Soft hyphens are ordinary typesetting and not reported."""

    name: ClassVar[str] = "invisible_unicode"
    order: ClassVar[int] = 0
    scored: ClassVar[bool] = False
    options: ClassVar[Mapping[str, OptionParser]] = COMMON_OPTIONS

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        if not maybe_hidden(text):
            return []
        return [Hit(kind, start, end, 1.0, "") for start, end, kind in _spans(text)]
