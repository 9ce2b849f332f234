"""CSV and TSV (RFC 4180): each row is one line that stands alone, `column: value; column: value`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from mainstay.knowledge.encoding import decode
from mainstay.knowledge.parsers.base import ParseError, registry, title_from_uri
from mainstay.knowledge.text import TextBuilder, looks_like_header
from mainstay.knowledge.types import ParsedText

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_LINES = 50


class DelimitedParser:
    name: ClassVar[str] = "delimited"
    version: ClassVar[str] = "1"
    media_types: ClassVar[Mapping[str, str]] = {".csv": "text/csv", ".tsv": "text/tab-separated-values"}
    isolated: ClassVar[bool] = False

    def parse(self, data: bytes, uri: str) -> ParsedText:
        text = decode(data).removeprefix("\ufeff").replace("\x00", "")
        rows = _rows(text, _delimiter(text))
        builder = TextBuilder()
        if rows and looks_like_header(rows):
            builder.table(rows, header=True)
        elif rows:
            width = max(map(len, rows))
            builder.table([[f"column {n}" for n in range(1, width + 1)], *rows], header=True)
        return builder.build(title_from_uri(uri))


def _delimiter(text: str) -> str:
    """The delimiter that cuts most sampled lines into the same number, above one, of cells."""
    sample = "\n".join(text.splitlines()[:_SAMPLE_LINES])

    def regularity(delimiter: str) -> tuple[float, int]:
        try:
            widths = Counter(len(row) for row in _rows(sample, delimiter))
        except ParseError:  # a long line that this one does not cut
            return 0.0, 0
        width, lines = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        return (lines / max(1, widths.total()) if width > 1 else 0.0, width)

    return max(_DELIMITERS, key=regularity)


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ParseError(
            f"The table cannot be read: {error}.", fix="Look for a quote that is not closed."
        ) from error
    return [row for row in rows if any(cell.strip() for cell in row)]


registry.register("delimited")(DelimitedParser())
