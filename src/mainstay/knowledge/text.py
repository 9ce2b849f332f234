"""Canonical text: one form of every text, so that offsets and digests mean the same everywhere."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain, repeat

from mainstay.knowledge.types import Heading, PageSpan, ParsedText

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f\xad]")  # and soft hyphens, which only say where to break
_SURROGATES = re.compile("[\ud800-\udfff]")
_ODD_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)  # each run is tried once, from its start
_BLANK_LINES = re.compile(r"\n{3,}")
_NUMBER = re.compile(r"[^A-Za-z]*\d[^A-Za-z]*$")
_LONGEST_COLUMN_NAME = 80


def canonical(text: str) -> str:
    """NFC, `\\n` line ends, plain spaces, no control characters or trailing spaces, at most one blank line.

    Zero-width and other format characters stay: they are for the guard to see. Idempotent.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))
    text = unicodedata.normalize("NFC", _ODD_SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text).lstrip("\n\ufeff").rstrip("\n"))


def fold(text: str) -> str:
    """One line: every run of white space is one space."""
    return " ".join(canonical(text).split())


class TextBuilder:
    """Builds a ParsedText from blocks; each piece is made canonical first, so that offsets are exact."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._page_starts: list[tuple[int, int]] = []
        self._pages_without_text: list[int] = []

    def start_page(self, number: int) -> None:
        """What is added next is on this page."""
        self._pages_without_text.append(number)

    def heading(self, level: int, title: str) -> None:
        title = fold(title)
        if title:
            start = self._add(title, "\n\n")
            self._headings.append(Heading(level, title, start, start + len(title)))

    def paragraph(self, text: str) -> None:
        self._add(fold(text), "\n\n")

    def item(self, text: str) -> None:
        """A line of a list, right below the line before it."""
        self._add(fold(text), "\n")

    def lines(self, text: str) -> None:
        """A block whose line ends matter, such as code."""
        self._add(canonical(text), "\n\n")

    def continue_paragraph(self, text: str, separator: str = " ") -> None:
        """More of the paragraph added last, as when a page ends within it."""
        self._add(fold(text), separator)

    def table(self, rows: Sequence[Sequence[str]], header: bool | None = None) -> None:
        for position, line in enumerate(table_lines(rows, header)):
            self._add(line, "\n" if position else "\n\n")

    def _add(self, text: str, separator: str) -> int:
        if not text:
            return self._length
        if self._parts:
            self._parts.append(separator)
            self._length += len(separator)
        start = self._length
        self._page_starts.extend((number, start) for number in self._pages_without_text)
        self._pages_without_text.clear()
        self._parts.append(text)
        self._length += len(text)
        return start

    def build(self, title: str) -> ParsedText:
        starts = [*self._page_starts, *((number, self._length) for number in self._pages_without_text)]
        following = [*starts[1:], (0, self._length)]
        pages = tuple(
            PageSpan(number, start, end) for (number, start), (_, end) in zip(starts, following, strict=False)
        )
        return ParsedText(fold(title), "".join(self._parts), pages, tuple(self._headings))


def table_lines(rows: Sequence[Sequence[str]], header: bool | None = None) -> list[str]:
    """Each row as one line that stands alone: `column: value; column: value`.

    `header` says whether the first row names the columns; None looks at the row. Without names a
    row of two cells is `left: right`, any other `a | b | c`. Empty cells are left out.
    """
    cells = [[fold(cell) for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not cells:
        return []
    if header is None:
        header = len(cells[0]) > 2 and looks_like_header(cells)
    if header and len(cells) > 1:
        return [_named_row(cells[0], row) for row in cells[1:]]
    return [_unnamed_row(row) for row in cells]


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: filled, distinct, short, and no numbers."""
    first = [cell.strip() for cell in rows[0]]
    named = all(first) and len(set(first)) == len(first)
    return (
        named
        and len(rows) > 1
        and not any(len(cell) > _LONGEST_COLUMN_NAME or _NUMBER.match(cell) for cell in first)
    )


def _named_row(names: Sequence[str], row: Sequence[str]) -> str:
    pairs = zip(chain(names, repeat("")), row, strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _unnamed_row(row: Sequence[str]) -> str:
    filled = [cell for cell in row if cell]
    return ": ".join(filled) if len(row) == 2 else " | ".join(filled)
