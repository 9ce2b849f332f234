"""What stands on the pages of a PDF: lines with place and look, and ruled tables."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from mainstay.core.errors import MainstayError
from mainstay.knowledge.parsers.base import ParseError
from mainstay.knowledge.parsers.xberg_reader import read_with_xberg
from mainstay.knowledge.text import fold

HYPHEN = "\x02"
"""How a hyphen at a line's end is marked, after reading; pdfium gives U+0002 or U+FFFE."""
_HYPHEN_CODES = (0x02, 0xFFFE)
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_DOT_LEADER = re.compile(r"(?:[ \t]*\.){5,}[ \t]*")
_NO_TITLE = re.compile(
    r"untitled|\(?anonymous\)?|\(?unspecified\)?|document\d*|microsoft word - .*|.*\.\w{2,4}", re.I
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. Points from the page's lower left corner; `size` is the height of most letters."""

    page: int
    text: str
    left: float
    right: float
    bottom: float
    size: float
    bold: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A ruled table; `rows` of cells. Box in points from the page's lower left corner."""

    page: int
    rows: tuple[tuple[str, ...], ...]
    left: float
    bottom: float
    right: float
    top: float


def read_lines(data: bytes) -> tuple[str | None, list[list[Line]]]:
    """(title in the metadata, lines of each page in reading order). Raises ParseError."""
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(data) as document:
            pages = [_page_lines(document, index) for index in range(len(document))]
            title = fold(document.get_metadata_value("Title"))
            return (None if _NO_TITLE.fullmatch(title) else title or None), pages
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise ParseError(
                "The PDF is protected by a password.", fix="Save it without the password."
            ) from error
        raise ParseError(
            f"The PDF is damaged: {error}.", fix="Open it in a viewer and print it to a new PDF."
        ) from error


def _page_lines(document: Any, index: int) -> list[Line]:
    page = document[index]
    text_page = page.get_textpage()
    try:
        codes = _codes(text_page)
        return [
            line
            for start, end in _line_ranges(codes)
            if (line := _line(text_page, codes, start, end, index + 1)) is not None
        ]
    finally:
        text_page.close()
        page.close()


def _codes(text_page: Any) -> list[int]:
    from pypdfium2 import raw

    return [raw.FPDFText_GetUnicode(text_page, i) for i in range(raw.FPDFText_CountChars(text_page))]


def _line_ranges(codes: list[int]) -> Iterator[tuple[int, int]]:
    """A line ends at a line break, or after the mark that pdfium puts for a hyphen and the break after it."""
    start = 0
    for position, code in enumerate(codes):
        if code in (0x0A, 0x0D):
            yield start, position
            start = position + 1
        elif code in _HYPHEN_CODES:
            yield start, position + 1
            start = position + 1
    yield start, len(codes)


def _line(text_page: Any, codes: list[int], start: int, end: int, page: int) -> Line | None:
    seen = [i for i in range(start, end) if codes[i] > 0x20 and codes[i] != 0xFFFE]
    if not seen:
        return None
    first, last = _box(text_page, seen[0]), _box(text_page, seen[-1])
    sample = {seen[len(seen) * part // 6] for part in range(1, 6)}
    bold = all(_is_bold(text_page, i) for i in (seen[0], seen[len(seen) // 2], seen[-1]))
    size = median_low(box.top - box.bottom for box in (_box(text_page, i) for i in sample))
    return Line(page, _text(codes[start:end]), first.left, last.right, first.bottom, size, bold)


def _text(codes: list[int]) -> str:
    """Code units to text: pdfium may give UTF-16 halves. Hyphens at a line's end are marked."""
    units = b"".join(
        code.to_bytes(2, "little") if code <= 0xFFFF else chr(code).encode("utf-16-le") for code in codes
    )
    text = _DOT_LEADER.sub(" … ", units.decode("utf-16-le", errors="replace").translate(_LIGATURES)).rstrip()
    if text.endswith(("\x02", "\ufffe", "\u00ad")):
        return fold(text[:-1]) + HYPHEN
    return fold(text)


def _box(text_page: Any, index: int) -> Any:
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text_page, index, box)
    return box


def _is_bold(text_page: Any, index: int) -> bool:
    from pypdfium2 import raw

    if raw.FPDFText_GetFontWeight(text_page, index) >= 600:
        return True
    name, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    raw.FPDFText_GetFontInfo(text_page, index, name, 128, flags)
    return any(word in name.value.lower() for word in (b"bold", b"black", b"heavy"))


def read_tables(data: bytes) -> Mapping[int, list[Table]]:
    """Ruled tables by page. None at all when xberg cannot read the file: its lines are still there."""
    try:
        document = read_with_xberg(data, "application/pdf", structure=False)
    except MainstayError:
        return {}
    tables: dict[int, list[Table]] = {}
    for table in document.tables or ():
        box, rows = table.bounding_box, tuple(tuple(map(fold, row)) for row in table.cells)
        if box is not None and len(rows) > 1:
            found = Table(table.page_number, rows, box.x0, box.y0, box.x1, box.y1)
            tables.setdefault(found.page, []).append(found)
    return tables
