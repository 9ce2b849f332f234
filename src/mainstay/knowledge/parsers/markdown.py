"""Markdown (CommonMark): the text stays as written, front matter goes, headings are mapped.

HTML comments stay in the text: what is hidden from a reader is exactly what the guard must see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from mainstay.knowledge.encoding import decode
from mainstay.knowledge.parsers.base import registry, title_from_uri
from mainstay.knowledge.text import canonical, fold
from mainstay.knowledge.types import Heading, ParsedText

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<fields>.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE_FIELD = re.compile(r"^title:[ \t]*(?P<quote>[\"']?)(?P<title>.+?)(?P=quote)$", re.MULTILINE)
_ATX = re.compile(r" {0,3}(?P<marks>#{1,6})(?P<title>[ \t].*|)$")
_SETEXT = re.compile(r" {0,3}(?P<line>=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})")
_NOT_A_PARAGRAPH = re.compile(r" {4}|\t| {0,3}(?:[-*+>|]|\d+[.)]|#{1,6} |`{3}|~{3})")


class MarkdownParser:
    name: ClassVar[str] = "markdown"
    version: ClassVar[str] = "1"
    media_types: ClassVar[Mapping[str, str]] = {".md": "text/markdown", ".markdown": "text/markdown"}
    isolated: ClassVar[bool] = False

    def parse(self, data: bytes, uri: str) -> ParsedText:
        text = canonical(decode(data))
        title, text = _without_front_matter(text)
        headings = tuple(_headings(text))
        first = min(headings, key=lambda h: (h.level, h.start), default=None)
        return ParsedText(title or (first.title if first else title_from_uri(uri)), text, (), headings)


def _without_front_matter(text: str) -> tuple[str | None, str]:
    match = _FRONT_MATTER.match(text)
    if match is None:
        return None, text
    title = _TITLE_FIELD.search(match["fields"])
    return (fold(title["title"]) if title else None), canonical(text[match.end() :])


def _headings(text: str) -> Iterator[Heading]:
    """ATX and setext headings outside fenced code."""
    offset, fence, previous = 0, None, ""
    for line in text.split("\n"):
        start, offset = offset, offset + len(line) + 1
        mark = _FENCE.match(line)
        if fence is not None:
            closes = mark and mark["fence"][0] == fence[0] and len(mark["fence"]) >= len(fence)
            fence = None if closes and line.strip() == (mark and mark["fence"]) else fence
            previous = ""
        elif mark is not None:
            fence, previous = mark["fence"], ""
        else:
            heading = _heading_at(line, previous, start)
            previous = "" if heading else line
            if heading is not None:
                yield heading


def _heading_at(line: str, previous: str, start: int) -> Heading | None:
    atx = _ATX.match(line)
    if atx is not None:
        title = fold(_without_closing_marks(atx["title"]))
        return Heading(len(atx["marks"]), title, start, start + len(line)) if title else None
    setext = _SETEXT.match(line)
    if setext is None or not previous.strip() or _NOT_A_PARAGRAPH.match(previous):
        return None
    level = 1 if setext["line"][0] == "=" else 2
    return Heading(level, fold(previous), start - len(previous) - 1, start + len(line))


def _without_closing_marks(title: str) -> str:
    """`# Title ##` is closed by marks that stand apart; those of `# C#` belong to it."""
    bare = title.rstrip().rstrip("#")
    return bare if not bare or bare[-1].isspace() else title


registry.register("markdown")(MarkdownParser())
