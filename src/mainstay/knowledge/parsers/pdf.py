"""PDF: lines and their look by pypdfium2, ruled tables by xberg, put together into paragraphs.

Wrapped lines are joined, hyphenated words too; lines that repeat at the head or foot of pages are left
out; headings are told by size and weight. The page map is exact in code points of the canonical text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import ClassVar

from mainstay.knowledge.parsers.base import ParseError, registry, title_from_uri, with_library
from mainstay.knowledge.parsers.pdf_layout import (
    Block,
    HeadingBlock,
    Hyphens,
    Paragraph,
    Styles,
    blocks_of,
    joined_across_pages,
    without_running_lines,
)
from mainstay.knowledge.parsers.pdf_lines import Line, Table, read_lines, read_tables
from mainstay.knowledge.text import TextBuilder
from mainstay.knowledge.types import ParsedText


class PdfParser:
    name: ClassVar[str] = "pdf"
    version: ClassVar[str] = with_library("1", "pypdfium2", "xberg")
    media_types: ClassVar[Mapping[str, str]] = {".pdf": "application/pdf"}
    isolated: ClassVar[bool] = True

    def parse(self, data: bytes, uri: str) -> ParsedText:
        title, pages = read_lines(data)
        if not any(pages):
            raise ParseError(
                "The PDF holds no text; its pages are images.", fix="Run text recognition (OCR) on it first."
            )
        pages = without_running_lines(pages)
        lines = [line for page in pages for line in page]
        if not lines:
            raise ParseError("The PDF holds nothing but page numbers and running heads.")
        blocks = joined_across_pages(
            _page_blocks(pages, read_tables(data)), max(line.right for line in lines)
        )
        composer = _Composer(Hyphens(line.text for line in lines))
        for block in blocks:
            composer.add(block)
        return composer.build(title, len(pages), uri)


def _page_blocks(pages: Sequence[list[Line]], tables: Mapping[int, list[Table]]) -> list[list[Block]]:
    styles = Styles.of([line for page in pages for line in page])
    return [blocks_of(lines, tables.get(number, []), styles) for number, lines in enumerate(pages, start=1)]


class _Composer:
    """Writes blocks into one text and marks where each page starts."""

    def __init__(self, hyphens: Hyphens) -> None:
        self._hyphens = hyphens
        self._builder = TextBuilder()
        self._page = 0
        self._first_heading: str | None = None
        self._after_item = False

    def add(self, block: Block) -> None:
        if isinstance(block, Table):
            self._reach(block.page)
            self._builder.table(block.rows)
        elif isinstance(block, HeadingBlock):
            self._reach(block.lines[0].page)
            title = "".join(separator + text for _, separator, text in self._hyphens.pieces(block.lines))
            self._first_heading = self._first_heading or title
            self._builder.heading(block.level, title)
        else:
            self._paragraph(block)
        self._after_item = isinstance(block, Paragraph) and block.is_item

    def _paragraph(self, block: Paragraph) -> None:
        """A paragraph over several pages is written page by page, so that each page starts where it does."""
        pieces = self._hyphens.pieces(block.lines)
        for position, (page, group) in enumerate(groupby(pieces, key=lambda piece: piece[0])):
            parts = [(separator, text) for _, separator, text in group]
            text = parts[0][1] + "".join(separator + part for separator, part in parts[1:])
            self._reach(page)
            if position:
                self._builder.continue_paragraph(text, parts[0][0])
            elif block.is_item and self._after_item:
                self._builder.item(text)
            else:
                self._builder.paragraph(text)

    def _reach(self, page: int) -> None:
        for number in range(self._page + 1, page + 1):
            self._builder.start_page(number)
        self._page = max(self._page, page)

    def build(self, title: str | None, pages: int, uri: str) -> ParsedText:
        self._reach(pages)
        return self._builder.build(title or self._first_heading or title_from_uri(uri))


registry.register("pdf")(PdfParser())
