"""What both forms of OTLP must hold to be a span we can store."""

from __future__ import annotations

from typing import Final, Literal

from mainstay.observe.types import Span

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
SpanStatus = Literal["unset", "ok", "error"]

INT64_MAX: Final = 2**63 - 1
DEPTH_MAX: Final = 32
"""Of nested attribute values; deeper ones are no telemetry."""

KINDS: Final[tuple[SpanKind, ...]] = ("internal", "internal", "server", "client", "producer", "consumer")
STATUSES: Final[tuple[SpanStatus, ...]] = ("unset", "ok", "error")


class Malformed(Exception):
    """Why one span (or, in JSON, a whole request) cannot be read."""


def checked(span: Span) -> Span:
    """The span, if its ids and times are sound; raises Malformed."""
    for what, found, length in (("trace id", span.trace_id, 32), ("span id", span.span_id, 16)):
        if len(found) != length or not found.strip("0"):
            raise Malformed(f"{what} {found!r} is not {length} hex digits, not all zero")
    if span.parent_id is not None and len(span.parent_id) != 16:
        raise Malformed(f"parent span id {span.parent_id!r} is not 16 hex digits")
    if not 0 < span.start_ns <= span.end_ns <= INT64_MAX:
        raise Malformed(f"span {span.name[:80]!r} has start {span.start_ns} and end {span.end_ns}")
    return span


def parent_or_none(parent_id: str) -> str | None:
    """An absent parent is written as empty, and by some clients as zeros."""
    return parent_id if parent_id.strip("0") else None
