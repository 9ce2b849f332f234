"""Web pages: the content that the page marks as its main one; else trafilatura finds it; else the whole body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from mainstay.knowledge.encoding import decode
from mainstay.knowledge.parsers.base import ParseError, registry, title_from_uri, with_library
from mainstay.knowledge.text import TextBuilder, fold
from mainstay.knowledge.types import ParsedText

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_ITEMS = {"li", "item", "dd"}
_TABLES = {"table"}
_VERBATIM = {"pre", "code"}
_LEFT_OUT = {
    "script",
    "style",
    "noscript",
    "template",
    "nav",
    "header",
    "footer",
    "aside",
    "form",
    "svg",
    "head",
}
_BLOCKS = {
    *_HEADINGS, *_ITEMS, *_TABLES, "pre", "p", "div", "section", "article", "main", "ul", "ol", "list", "dl",
    "dt", "header", "blockquote", "quote", "figure", "figcaption", "body", "details", "summary", "address", "hr",
}  # fmt: skip
_ENOUGH_OF_BODY = 0.5


class HtmlParser:
    name: ClassVar[str] = "html"
    version: ClassVar[str] = with_library("1", "trafilatura")
    media_types: ClassVar[Mapping[str, str]] = {
        ".html": "text/html",
        ".htm": "text/html",
        ".xhtml": "application/xhtml+xml",
    }
    isolated: ClassVar[bool] = True

    def parse(self, data: bytes, uri: str) -> ParsedText:
        page = _tree(_text(data))
        builder = TextBuilder()
        _Walker(builder).block(_main_content(page))
        return builder.build(_title(page) or title_from_uri(uri))


def _text(data: bytes) -> str:
    """The page's text in the encoding it declares, else in the one it seems to have."""
    declared = _CHARSET.search(data[:4096])
    if declared is not None and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


def _tree(text: str) -> Any:
    from lxml import html  # type: ignore[import-untyped]

    without_declaration = re.sub(r"\A\s*<\?xml[^>]*\?>", "", text)
    try:
        return html.document_fromstring(without_declaration)
    except (ValueError, html.etree.ParserError) as error:
        raise ParseError("The page is empty or damaged.", fix="Save the page again.") from error


def _main_content(page: Any) -> Any:
    """The page's own `main` or only `article`; without one what trafilatura finds, if that is most of the body."""
    marked = page.xpath("//main | //*[@role='main']") or page.xpath("//article")
    if len(marked) == 1 and _visible_chars(marked[0]):
        return marked[0]
    body = next(iter(page.xpath("//body")), page)
    found = (_main_by_statistics(page, precise) for precise in (False, True))
    enough = _ENOUGH_OF_BODY * _visible_chars(body)
    return next((tree for tree in found if tree is not None and _visible_chars(tree) >= enough), body)


def _main_by_statistics(page: Any, precise: bool) -> Any:
    """trafilatura's tree of the main content; None when it is not sure, or lost the headings."""
    import trafilatura
    from lxml import html

    found: Any = trafilatura.bare_extraction(
        html.tostring(page, encoding="unicode"),
        favor_precision=precise,
        include_comments=False,
        include_tables=True,
    )
    if found is None or found.body is None:
        return None
    lost_headings = bool(page.xpath("//body//h2")) and next(found.body.iter("head"), None) is None
    return None if lost_headings else found.body


def _visible_chars(element: Any) -> int:
    return sum(len(fold(text)) for text in _texts(element))


def _texts(element: Any) -> Iterator[str]:
    """The text pieces below an element in reading order; a line break is one space."""
    if _kind(element) is None:
        return
    if element.tag in ("br", "lb"):
        yield " "
    yield element.text or ""
    for child in element:
        yield from _texts(child)
        yield child.tail or ""


def _title(page: Any) -> str | None:
    """The only `h1`, else the page's title."""
    headings = [fold("".join(_texts(h))) for h in page.xpath("//h1")]
    if len(headings) == 1 and headings[0]:
        return headings[0]
    return fold(page.findtext(".//title") or "") or None


class _Walker:
    """Adds the blocks of an element tree, in HTML or in trafilatura's dialect of TEI, to a text."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._loose: list[str] = []
        self._in_list = False

    def block(self, element: Any) -> None:
        tag = _kind(element)
        if tag is None:
            return
        if tag in _HEADINGS:
            self._builder.heading(_HEADINGS[tag], "".join(_texts(element)))
        elif tag in _TABLES:
            rows, header = _table(element)
            self._builder.table(rows, header)
        elif tag in _VERBATIM:
            self._builder.lines(
                element.text_content() if hasattr(element, "text_content") else "".join(_texts(element))
            )
        else:
            self._container(element, is_item=tag in _ITEMS)
            return
        self._in_list = False

    def _container(self, element: Any, is_item: bool) -> None:
        """Runs of inline content become paragraphs; blocks within are added in their place."""
        self._loose.append(element.text or "")
        for child in element:
            if _kind(child) in _BLOCKS or _is_verbatim_block(child):
                self._flush(is_item)
                self.block(child)
            else:
                self._loose.extend(_texts(child))
            self._loose.append(child.tail or "")
        self._flush(is_item)

    def _flush(self, is_item: bool) -> None:
        text = fold("".join(self._loose))
        self._loose.clear()
        if not text:
            return
        if is_item:
            (self._builder.item if self._in_list else self._builder.paragraph)(f"- {text}")
        else:
            self._builder.paragraph(text)
        self._in_list = is_item


def _kind(element: Any) -> str | None:
    """The HTML name of an element's kind, None for what is no content. TEI's `head rend="h2"` is `h2`."""
    tag = element.tag
    if not isinstance(tag, str):
        return None
    if tag == "head" and element.get("rend") in _HEADINGS:
        return str(element.get("rend"))
    if tag == "header" and next(element.iter("h1", "h2", "h3"), None) is not None:
        return "div"
    return None if tag in _LEFT_OUT or _is_hidden(element) else tag


def _is_hidden(element: Any) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.get("hidden") is not None or "display:none" in style


def _is_verbatim_block(element: Any) -> bool:
    return element.tag == "code" and "\n" in "".join(_texts(element)).strip()


def _table(element: Any) -> tuple[list[list[str]], bool | None]:
    """Cells by row, and whether the first row is marked as the header (None when nothing is marked)."""
    rows = [[cell for cell in row if cell.tag in ("td", "th", "cell")] for row in element.iter("tr", "row")]
    marked = any(_is_header_cell(cell) for row in rows for cell in row)
    header = all(map(_is_header_cell, rows[0])) if marked and rows and rows[0] else None
    return [[fold("".join(_texts(cell))) for cell in row] for row in rows], header


def _is_header_cell(cell: Any) -> bool:
    return bool(cell.tag == "th" or cell.get("role") == "head")


registry.register("html")(HtmlParser())
