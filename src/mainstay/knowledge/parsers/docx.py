"""DOCX (ECMA-376) by xberg: headings from styles, lists, tables, notes. It has no pages: those are the printer's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from mainstay.knowledge.parsers.base import ParseError, registry, title_from_uri, with_library
from mainstay.knowledge.parsers.xberg_reader import read_with_xberg
from mainstay.knowledge.text import TextBuilder
from mainstay.knowledge.types import ParsedText

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class DocxParser:
    name: ClassVar[str] = "docx"
    version: ClassVar[str] = with_library("1", "xberg")
    media_types: ClassVar[Mapping[str, str]] = {".docx": MEDIA_TYPE}
    isolated: ClassVar[bool] = True

    def parse(self, data: bytes, uri: str) -> ParsedText:
        if data.startswith(_OLE_MARK):
            raise ParseError(
                "The file is protected by a password, or is in the format before 2007.",
                fix="Save it as a .docx without a password.",
            )
        document = read_with_xberg(data, MEDIA_TYPE, structure=True)
        builder = TextBuilder()
        first_heading = _build(document, builder)
        title = document.metadata.title or first_heading or title_from_uri(uri)
        return builder.build(title)


def _build(document: Any, builder: TextBuilder) -> str | None:
    """Add every block of the body; returns the first heading's text. Page headers and footers are left out."""
    blocks = list(_body(document))
    below_title = 1 if any(style == "title" for _, style in blocks) else 0
    first: str | None = None
    in_list = False
    for content, style in blocks:
        kind = content["node_type"]
        if kind in ("heading", "title"):
            first = first or content["text"]
            level = 1 if style == "title" else int(content.get("level", 1)) + below_title
            builder.heading(level, content["text"])
        elif kind == "list_item":
            (builder.item if in_list else builder.paragraph)(f"- {content['text']}")
        else:
            _add_block(builder, kind, content)
        in_list = kind == "list_item" or (in_list and kind == "list")
    return first


def _add_block(builder: TextBuilder, kind: str, content: Mapping[str, Any]) -> None:
    if kind == "table":
        builder.table(_grid(content["grid"]))
    elif kind == "code":
        builder.lines(content["text"])
    elif kind == "definition_item":
        builder.paragraph(f"{content['term']}: {content['definition']}")
    elif isinstance(content.get("text"), str):
        builder.paragraph(content["text"])


def _body(document: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """(content, style name in lower case) of each node of the text and its footnotes."""
    for node in document.document.nodes if document.document else ():
        if str(node.content_layer) in ("body", "footnote"):
            yield json.loads(str(node.content)), (node.attributes or {}).get("style_name", "").lower()


def _grid(grid: Mapping[str, Any]) -> list[list[str]]:
    rows = [[""] * int(grid["cols"]) for _ in range(int(grid["rows"]))]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = cell["content"]
    return rows


registry.register("docx")(DocxParser())
