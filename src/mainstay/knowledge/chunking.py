"""Chunks: paragraphs and sentences packed up to a target size, each an exact span of its version's text.

A chunk never spans two top sections, and a row of a table is not cut unless it is longer than the target.
Every character that is not white space is in exactly one chunk.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mainstay.core.content import digest_json
from mainstay.knowledge.types import Chunk, ChunkSettings, DocumentVersion, Heading

CHUNKER_VERSION = "1"
TABLE_MEDIA_TYPES = frozenset({"text/csv", "text/tab-separated-values"})

_PARAGRAPH_END = re.compile(r"\n(?:[ \t]*\n)+")
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’»)\]]*[ \t\n]+(?=[\"'“‘«(\[]?[^\Wa-z_])|(?<=[。！？]))")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|No|Nr|vs|etc|approx|e\.g|i\.e|z\.B|bzw|ca|Fig|Abb|Inc|Ltd|Co)\.[ \t\n]+$"
)
_ROW = re.compile(r"\s*\||[^:;\n]{1,80}: [^\n]*; [^:;\n]{1,80}: |[^|\n]+ \| ")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•]|\(?\d{1,3}[.)])[ \t]")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Section:
    """Text from one heading to the next. `top` numbers the top section it belongs to."""

    start: int
    end: int
    level: int
    top: int
    bare: bool  # a heading without text of its own


def chunker_fingerprint(settings: ChunkSettings) -> str:
    return digest_json(
        {
            "version": CHUNKER_VERSION,
            "target_chars": settings.target_chars,
            "table_target_chars": settings.table_target_chars,
        }
    )


def chunk_version(version: DocumentVersion, settings: ChunkSettings) -> tuple[Chunk, ...]:
    """All chunks of a version in order."""
    is_table = version.media_type in TABLE_MEDIA_TYPES
    target = settings.table_target_chars if is_table else settings.target_chars
    page_starts = [page.start for page in version.pages]
    paths = _HeadingPaths(version.text, version.headings)
    return tuple(
        Chunk(
            id=chunk_id(version.id, start, end),
            version_id=version.id,
            ordinal=ordinal,
            start=start,
            end=end,
            page=version.pages[max(0, bisect_right(page_starts, start) - 1)].number if page_starts else None,
            heading_path=paths.at(start, end),
            text=version.text[start:end],
        )
        for ordinal, (start, end) in enumerate(chunk_spans(version.text, version.headings, target, is_table))
    )


def chunk_id(version_id: str, start: int, end: int) -> str:
    return digest_json([version_id, start, end])


def chunk_spans(text: str, headings: Sequence[Heading], target: int, rows: bool = False) -> list[Span]:
    """Where to cut `text`; `rows` says every line is a row of a table."""
    spans: list[Span] = []
    for start, end in _groups(_sections(text, headings), target):
        spans.extend(_pack(list(_units(text, start, end, target, rows)), target))
    return [span for span in (_trim(text, *span) for span in spans) if span[0] < span[1]]


def _sections(text: str, headings: Sequence[Heading]) -> list[_Section]:
    """The text cut before each heading, with what stands before the first one."""
    top_level = _top_level(headings)
    starts = [(0, 0, 0), *((h.start, h.level, h.end) for h in headings)]
    sections, top = [], 0
    for (start, level, heading_end), (end, _, _) in pairwise([*starts, (len(text), 0, 0)]):
        top += 0 < level <= top_level
        if text[start:end].strip():
            bare = level > 0 and not text[heading_end:end].strip()
            sections.append(_Section(start, end, level, top, bare))
    return sections


def _top_level(headings: Sequence[Heading]) -> int:
    """The outermost level that several headings have: a lone first level is the document's title."""
    levels = sorted({h.level for h in headings})
    several = (level for level in levels if sum(h.level == level for h in headings) > 1)
    return next(several, levels[0] if levels else 0)


def _groups(sections: Iterable[_Section], target: int) -> Iterator[Span]:
    """Sections to pack together: a bare heading goes with what is below it, short ones with their neighbour."""
    group: list[_Section] = []
    for section in sections:
        if group and not _belongs(group, section, target):
            yield group[0].start, group[-1].end
            group = []
        group.append(section)
    if group:
        yield group[0].start, group[-1].end


def _belongs(group: Sequence[_Section], section: _Section, target: int) -> bool:
    last = group[-1]
    if all(s.bare for s in group) and section.level > last.level:
        return True
    short = last.end - group[0].start < target // 4
    return short and section.top == last.top and section.end - group[0].start <= target


def _units(text: str, start: int, end: int, target: int, rows: bool) -> Iterator[Span]:
    """Pieces of at most `target` characters: paragraphs, or rows and sentences of long ones, or cuts at spaces."""
    for piece in _cut(start, end, (m.end() for m in _PARAGRAPH_END.finditer(text, start, end))):
        if not rows and _length(text, *piece) <= target:
            yield piece
            continue
        for line in _cut(*piece, _line_ends(text, *piece, rows)):
            yield from _sentences(text, *line, target, rows)


def _line_ends(text: str, start: int, end: int, rows: bool) -> Iterator[int]:
    """Line ends that separate rows or items; those of wrapped lines do not count."""
    line_start = start
    while (at := text.find("\n", line_start, end)) != -1:
        following = at + 1
        if (
            rows
            or _ROW.match(text, line_start)
            or _ROW.match(text, following)
            or _LIST_ITEM.match(text, following)
        ):
            yield following
        line_start = following


def _sentences(text: str, start: int, end: int, target: int, rows: bool) -> Iterator[Span]:
    row = rows or _ROW.match(text, start, end) is not None
    if row and _length(text, start, end) <= target:
        yield start, end
        return
    ends = (m.end() for m in _SENTENCE_END.finditer(text, start, end))
    whole = (at for at in ends if not _ABBREVIATION.search(text[max(start, at - 12) : at]))
    for sentence in _cut(start, end, whole):
        yield from _cut(*sentence, _forced_cuts(text, *sentence, target))


def _forced_cuts(text: str, start: int, end: int, target: int) -> Iterator[int]:
    """Cuts of what is too long: after the last space, or within a word when it has none."""
    while end - start > target:
        space = max(text.rfind(" ", start, start + target), text.rfind("\n", start, start + target))
        start = space + 1 if space > start else start + target
        yield start


def _pack(units: Sequence[Span], target: int) -> Iterator[Span]:
    """Join neighbours up to the target, towards pieces of about equal size."""
    if not units:
        return
    total = units[-1][1] - units[0][0]
    aim = total / -(-total // target)
    start, end = units[0]
    for unit_start, unit_end in units[1:]:
        too_long = unit_end - start > target
        nearer_without = (end - start) > 0.6 * aim and aim - (end - start) <= (unit_end - start) - aim
        if too_long or nearer_without:
            yield start, end
            start = unit_start
        end = unit_end
    yield start, end


def _cut(start: int, end: int, points: Iterable[int]) -> Iterator[Span]:
    for point in points:
        if start < point < end:
            yield start, point
            start = point
    if start < end:
        yield start, end


def _trim(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _length(text: str, start: int, end: int) -> int:
    return len(text[start:end].strip())


class _HeadingPaths:
    """Which headings a chunk stands below: titles from the outermost down."""

    def __init__(self, text: str, headings: Sequence[Heading]) -> None:
        self._text = text
        self._headings = headings
        self._starts = [h.start for h in headings]
        self._paths: list[tuple[str, ...]] = []
        path: list[Heading] = []
        for heading in headings:
            path = [*(h for h in path if h.level < heading.level), heading]
            self._paths.append(tuple(h.title for h in path))

    def at(self, start: int, end: int) -> tuple[str, ...]:
        """The path at the first text in [start, end) that is not itself a heading."""
        index = bisect_right(self._starts, start) - 1
        while index + 1 < len(self._headings) and self._starts[index + 1] < end:
            after = max(start, self._headings[index].end if index >= 0 else 0)
            if self._text[after : self._starts[index + 1]].strip():
                break
            index += 1
        return self._paths[index] if index >= 0 else ()
