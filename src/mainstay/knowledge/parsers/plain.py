"""Plain text: headings are underlined lines, or lines in capitals that stand after a blank line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mainstay.knowledge.encoding import decode
from mainstay.knowledge.parsers.base import registry, title_from_uri
from mainstay.knowledge.text import canonical, fold
from mainstay.knowledge.types import Heading, ParsedText

_CAPITALS = re.compile(r"(?:(?<=\n\n)|\A)(?P<title>[^\n]{3,80})(?=\n|\Z)")
_UNDERLINED = re.compile(r"(?:(?<=\n\n)|\A)(?P<title>\S[^\n]{1,99})\n(?P<line>={3,}|-{3,})(?=\n|\Z)")


class PlainParser:
    name: ClassVar[str] = "plain"
    version: ClassVar[str] = "1"
    media_types: ClassVar[Mapping[str, str]] = {".txt": "text/plain", ".text": "text/plain"}
    isolated: ClassVar[bool] = False

    def parse(self, data: bytes, uri: str) -> ParsedText:
        text = canonical(decode(data))
        headings = sorted([*_underlined(text), *_capitals(text)], key=lambda h: h.start)
        if headings and headings[0].start == 0 and headings[0].level == 1:  # the title; the rest is below it
            headings = [headings[0], *(replace(h, level=h.level + 1) for h in headings[1:])]
        return ParsedText(_title(text, headings, uri), text, (), tuple(headings))


def _underlined(text: str) -> list[Heading]:
    return [
        Heading(1 if m["line"][0] == "=" else 2, fold(m["title"]), m.start("title"), m.end("line"))
        for m in _UNDERLINED.finditer(text)
    ]


def _capitals(text: str) -> list[Heading]:
    return [
        Heading(1, fold(m["title"]), m.start("title"), m.end("title"))
        for m in _CAPITALS.finditer(text)
        if sum(c.isalpha() for c in m["title"]) >= 3 and m["title"].isupper() and m["title"][-1] not in ".;,"
    ]


def _title(text: str, headings: list[Heading], uri: str) -> str:
    first = text.partition("\n")[0].strip()
    if headings and headings[0].start == 0:
        return headings[0].title
    return first if 0 < len(first) <= 80 and first[-1] not in ".;,:" else title_from_uri(uri)


registry.register("plain")(PlainParser())
