"""From lines to blocks: what repeats on every page, what is a heading, where a paragraph ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median

from mainstay.knowledge.parsers.pdf_lines import HYPHEN, Line, Table

_EDGE_LINES = 2  # a running head or foot has at most so many lines
_PAGE_NUMBER = re.compile(
    r"(?:page|seite|p\.)?\s*[-–]?\s*\d{1,4}(?:\s*(?:of|von|/)\s*\d{1,4})?\s*[-–]?|[ivxl]{1,6}", re.IGNORECASE
)
_ITEM = re.compile(r"(?:[•◦▪‣●○■–—*-]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+\S")
_SENTENCE_END = re.compile(r"[.!?:;][\"')\]”’]*$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LEADER = " … "  # what dots between a title and its page number are read as
_HEADING_LINES_MAX = 3
_HEADING_CHARS_MAX = 150
_LARGER = 1.12
_WIDE_GAP = 1.25
_BLANK_LINE = 1.9
_FULL_LINE = 0.9
_SHORT_LINE = 0.75
_OTHER_SIZE = 1.25

Style = tuple[float, bool]
"""(size rounded to half a point, bold)"""


@dataclass(frozen=True, slots=True)
class HeadingBlock:
    level: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    lines: tuple[Line, ...]

    @property
    def is_item(self) -> bool:
        return _ITEM.match(self.lines[0].text) is not None

    def goes_on_in(self, other: Paragraph, right: float) -> bool:
        """Whether this paragraph was cut by the end of a column or page: no full stop, and a full last line."""
        last, first = self.lines[-1], other.lines[0]
        if other.is_item or _style(last) != _style(first) or _SENTENCE_END.search(last.text):
            return False
        return last.text.endswith(HYPHEN) or first.text[0].islower() or last.right > 0.85 * right


Block = HeadingBlock | Paragraph | Table


def _style(line: Line) -> Style:
    return (round(line.size * 2) / 2, line.bold)


@dataclass(frozen=True, slots=True)
class Styles:
    """The look of the body, and the level of each look that is a heading's."""

    body: Style
    levels: dict[Style, int]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Styles:
        """The body is the look of most characters; larger or bold looks are headings, the largest first."""
        weights: Counter[Style] = Counter()
        for line in lines:
            weights[_style(line)] += len(line.text)
        body = max(weights, key=lambda style: (weights[style], style))
        larger = {
            s for s in weights if s[0] >= _LARGER * body[0] or (s[1] and not body[1] and s[0] >= body[0])
        }
        used = sorted(
            {_style(line) for line in lines if _style(line) in larger and _could_be_heading(line)},
            reverse=True,
        )
        return cls(body, {style: min(level, 6) for level, style in enumerate(used, start=1)})


def _could_be_heading(line: Line) -> bool:
    text = line.text
    if len(text) > _HEADING_CHARS_MAX or _LEADER in text or not any(map(str.isalpha, text)):
        return False
    return (text[0].isalnum() or text[0] in "\"'“‘«§") and text[-1] not in f".;,{HYPHEN}"


def without_running_lines(pages: list[list[Line]]) -> list[list[Line]]:
    """Drop page numbers, and lines at the top or foot that repeat, but for digits, on half of the pages.

    The very first and last line of a page also goes when it holds a page number and repeats at all, as
    the head of a chapter does.
    """
    counts = Counter(
        key for page in pages for key in {_masked(line) for line in _edge_lines(page, _EDGE_LINES)}
    )
    enough = max(3, (len(pages) + 1) // 2)

    def runs(line: Line, outermost: bool) -> bool:
        masked = _masked(line)
        numbered = outermost and counts[masked] > 1 and masked.strip("# ") != "" and masked[-1] == "#"
        return counts[masked] >= enough or numbered or _PAGE_NUMBER.fullmatch(line.text) is not None

    kept = []
    for page in pages:
        edge, outermost = _edge_lines(page, _EDGE_LINES), _edge_lines(page, 1)
        kept.append([line for line in page if not (line in edge and runs(line, line in outermost))])
    return kept


def _edge_lines(page: list[Line], count: int) -> list[Line]:
    """The lines at the very top and foot of a page, by their height on it."""
    heights = sorted({round(line.bottom) for line in page})
    outer = {*heights[:count], *heights[-count:]}
    return [line for line in page if round(line.bottom) in outer]


def _masked(line: Line) -> str:
    return re.sub(r"\d+", "#", line.text.casefold())


def blocks_of(lines: Sequence[Line], tables: Sequence[Table], styles: Styles) -> list[Block]:
    """The blocks of one page in reading order."""
    blocks: list[Block] = []
    for table, group in groupby(lines, key=lambda line: _table_around(line, tables)):
        within = list(group)
        if table is not None and _same_text(table, within):
            blocks.append(table)
        else:
            blocks.extend(_text_blocks(within, styles))
    return blocks


def _table_around(line: Line, tables: Sequence[Table]) -> Table | None:
    x, y = (line.left + line.right) / 2, line.bottom + line.size / 2
    return next((t for t in tables if t.left <= x <= t.right and t.bottom <= y <= t.top), None)


def _same_text(table: Table, lines: Sequence[Line]) -> bool:
    """A table is believed only when it holds exactly the characters of the lines it stands for."""
    return _characters(cell for row in table.rows for cell in row) == _characters(line.text for line in lines)


def _characters(texts: Iterable[str]) -> Counter[str]:
    return Counter(c for text in texts for c in text if c.isalnum())


def _text_blocks(lines: Sequence[Line], styles: Styles) -> Iterator[Block]:
    leading = _leading(lines, styles.body)
    for is_heading, group in groupby(lines, key=lambda line: _heading_style(line, styles)):
        run = list(group)
        if is_heading is None:
            yield from (Paragraph(tuple(part)) for part in _paragraphs(run, leading))
            continue
        for part in _split(run, lambda a, b: a.bottom - b.bottom > 2 * a.size or b.bottom >= a.bottom):
            if len(part) <= _HEADING_LINES_MAX:
                yield HeadingBlock(styles.levels[is_heading], tuple(part))
            else:
                yield Paragraph(tuple(part))


def _heading_style(line: Line, styles: Styles) -> Style | None:
    style = _style(line)
    return style if style in styles.levels and _could_be_heading(line) else None


def _leading(lines: Sequence[Line], body: Style) -> float:
    """The usual distance between two lines of the body, points."""
    gaps = [a.bottom - b.bottom for a, b in pairwise(lines) if _style(a) == _style(b) == body]
    near = [gap for gap in gaps if 0 < gap < 3 * body[0]]
    return median(near) if near else 1.3 * body[0]


def _paragraphs(lines: Sequence[Line], leading: float) -> Iterator[list[Line]]:
    right = max((line.right for line in lines), default=0.0)

    def ends(a: Line, b: Line) -> bool:
        gap = a.bottom - b.bottom
        if abs(gap) < 0.5 * a.size:  # side by side: cells of a table without rules
            return False
        if gap < 0:  # the next column
            return not Paragraph((a,)).goes_on_in(Paragraph((b,)), right=a.right)
        if _ITEM.match(b.text) or not 1 / _OTHER_SIZE < a.size / b.size < _OTHER_SIZE:
            return True
        finished = _SENTENCE_END.search(a.text) is not None
        if a.right > _FULL_LINE * right and not finished and gap < _BLANK_LINE * a.size:
            return False  # a larger gap than usual in the middle of a sentence comes from another font
        return gap > _WIDE_GAP * leading or (
            a.right < _SHORT_LINE * right and finished and b.text[0].isupper()
        )

    return _split(lines, ends)


def _split(lines: Sequence[Line], ends: Callable[[Line, Line], bool]) -> Iterator[list[Line]]:
    part: list[Line] = []
    for line in lines:
        if part and ends(part[-1], line):
            yield part
            part = []
        part.append(line)
    if part:
        yield part


def joined_across_pages(pages: Sequence[list[Block]], right: float) -> list[Block]:
    """All blocks in order, paragraphs that go on over a page's end made one."""
    joined: list[Block] = []
    for blocks in pages:
        for position, block in enumerate(blocks):
            last = joined[-1] if joined else None
            before = last if position == 0 and isinstance(last, Paragraph) else None
            if before and isinstance(block, Paragraph) and before.goes_on_in(block, right):
                joined[-1] = replace(before, lines=before.lines + block.lines)
            else:
                joined.append(block)
    return joined


class Hyphens:
    """Tells whether a hyphen at a line's end belongs to the word, from the words written elsewhere."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = {word.casefold() for text in texts for word in _WORD.findall(text)}

    def seam(self, before: str, after: str) -> tuple[str, str]:
        """(what stays of the line before, what to put between it and the line after)."""
        if not before.endswith((HYPHEN, "-")) or len(before) < 2 or not before[-2].isalpha():
            return before.replace(HYPHEN, "-"), " "
        stem = before[:-1]
        head, tail = _WORD.findall(stem)[-1], _WORD.match(after)
        if tail is None or not after[0].islower():
            return f"{stem}-", "" if tail else " "
        keeps = (
            f"{head}-{tail[0]}".casefold() in self._words and (head + tail[0]).casefold() not in self._words
        )
        return (f"{stem}-", "") if keeps else (stem, "")

    def pieces(self, lines: Sequence[Line]) -> Iterator[tuple[int, str, str]]:
        """(page, separator before, text) of each line."""
        separator = ""
        for line, following in zip(lines, [*lines[1:], None], strict=True):
            text, after = (
                self.seam(line.text, following.text) if following else (line.text.replace(HYPHEN, "-"), "")
            )
            yield line.page, separator, text
            separator = after
