"""A trace as rows of bars, for pages and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.observe.tree import tree_order
from mainstay.observe.types import Span, WaterfallRow

NS_PER_MS = 1_000_000


def waterfall(spans: Sequence[Span]) -> list[WaterfallRow]:
    """Rows in reading order: parents before children, siblings by start, orphans at the top level."""
    if not spans:
        return []
    first = min(span.start_ns for span in spans)
    whole_ns = max(1, max(span.end_ns for span in spans) - first)
    known = {span.span_id for span in spans}
    return [_row(spans[place.at], place.depth, first, whole_ns, known) for place in tree_order(spans)]


def _row(span: Span, depth: int, first_ns: int, whole_ns: int, known: set[str]) -> WaterfallRow:
    duration_ns = max(0, span.end_ns - span.start_ns)
    return WaterfallRow(
        span=span,
        depth=depth,
        offset_ms=(span.start_ns - first_ns) / NS_PER_MS,
        duration_ms=duration_ns / NS_PER_MS,
        share=duration_ns / whole_ns,
        offset_share=(span.start_ns - first_ns) / whole_ns,
        orphan=span.parent_id is not None and span.parent_id not in known,
    )
