"""Roll-ups: trace rows counted by time, app and release, so that charts need not read rows.

All sums are of integers, so that a row's contribution can be taken out again without a trace, and the order
of arrival makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mainstay.observe.sketch import Sketch
from mainstay.observe.types import RollUp, TraceRow

HOUR_NS = 3_600_000_000_000
WIDTHS_NS = (HOUR_NS, HOUR_NS // 12)
"""What is stored, widest first: hours for charts, five minutes for the ends of a time that is no whole hour."""
SHARE_PARTS = 1_000_000_000
"""A grounded share is summed as so many parts of one."""

Group = tuple[int, str | None, int | None]
"""(start of the bucket, app, release)"""


class ChartRow(NamedTuple):
    """What charts need of a trace row. `error` is 0 or 1."""

    start_ns: int
    app: str | None
    release: int | None
    error: int
    cost_nusd: int | None
    input_tokens: int | None
    output_tokens: int | None
    duration_ms: float
    ttft_ms: float | None
    grounded_share: float | None
    guard_hits: int


@dataclass(slots=True)
class Tally:
    """Counts and sums over trace rows. `grounded` of them had a share, which sum up to `grounded_parts`."""

    requests: int = 0
    errors: int = 0
    cost_nusd: int = 0
    cost_unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    guard_hits: int = 0
    grounded: int = 0
    grounded_parts: int = 0
    durations: Sketch = field(default_factory=Sketch)
    ttfts: Sketch = field(default_factory=Sketch)

    def add(self, row: ChartRow, times: int = 1) -> None:
        """Count a row; `times` -1 takes out one that was counted."""
        self.requests += times
        self.errors += times * row.error
        self.cost_nusd += times * (row.cost_nusd or 0)
        self.cost_unknown += times * (row.cost_nusd is None)
        self.input_tokens += times * (row.input_tokens or 0)
        self.output_tokens += times * (row.output_tokens or 0)
        self.guard_hits += times * row.guard_hits
        self.durations.add(row.duration_ms, times)
        if row.ttft_ms is not None:
            self.ttfts.add(row.ttft_ms, times)
        if row.grounded_share is not None:
            self.grounded += times
            share = min(max(row.grounded_share, 0.0), 1.0)  # spans from outside may say anything
            self.grounded_parts += times * round(share * SHARE_PARTS)

    def merge(self, other: Tally) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.cost_nusd += other.cost_nusd
        self.cost_unknown += other.cost_unknown
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.guard_hits += other.guard_hits
        self.grounded += other.grounded
        self.grounded_parts += other.grounded_parts
        self.durations.merge(other.durations)
        self.ttfts.merge(other.ttfts)


class Tallies:
    """Tallies by group, for buckets of `bucket_ns` that start at multiples of it, or one bucket for all time."""

    def __init__(self, bucket_ns: int, by_release: bool = True, start_ns: int | None = None) -> None:
        """`start_ns`: everything goes into one bucket that starts then."""
        self._bucket_ns = bucket_ns
        self._by_release = by_release
        self._start_ns = start_ns
        self.groups: dict[Group, Tally] = {}

    def add(self, row: ChartRow, times: int = 1) -> None:
        self._of(row.start_ns, row.app, row.release).add(row, times)

    def merge(self, group: Group, tally: Tally) -> None:
        self._of(*group).merge(tally)

    def roll_ups(self) -> list[RollUp]:
        """In order of time, app, release."""
        found = [(group, tally) for group, tally in self.groups.items() if tally.requests]
        found.sort(key=lambda item: (item[0][0], item[0][1] or "", item[0][2] or 0))
        return [_roll_up(*group, tally) for group, tally in found]

    def _of(self, at_ns: int, app: str | None, release: int | None) -> Tally:
        start_ns = at_ns - at_ns % self._bucket_ns if self._start_ns is None else self._start_ns
        group = (start_ns, app, release if self._by_release else None)
        tally = self.groups.get(group)
        if tally is None:
            tally = self.groups[group] = Tally()
        return tally


def chart_row(row: TraceRow) -> ChartRow:
    return ChartRow(
        row.start_ns, row.app, row.release, int(row.status == "error"), row.cost_nusd, row.input_tokens,
        row.output_tokens, row.duration_ms, row.ttft_ms, row.grounded_share, row.guard_hits,
    )  # fmt: skip


class Piece(NamedTuple):
    """A part [start, end) of a time: read from roll-ups of `width_ns`, or from rows where it is None."""

    start_ns: int
    end_ns: int
    width_ns: int | None


def pieces(start_ns: int, end_ns: int, widths_ns: Sequence[int]) -> Iterator[Piece]:
    """A time in as few buckets as it can be read from; what no bucket fits is left to rows."""
    if start_ns >= end_ns:
        return
    if not widths_ns:
        yield Piece(start_ns, end_ns, None)
        return
    width, *finer = widths_ns
    first, last = -(-start_ns // width) * width, end_ns // width * width
    if first >= last:
        yield from pieces(start_ns, end_ns, finer)
        return
    yield from pieces(start_ns, first, finer)
    yield Piece(first, last, width)
    yield from pieces(last, end_ns, finer)


def _roll_up(start_ns: int, app: str | None, release: int | None, tally: Tally) -> RollUp:
    return RollUp(
        bucket_start_ns=start_ns,
        app=app,
        release=release,
        requests=tally.requests,
        errors=tally.errors,
        cost_nusd=tally.cost_nusd,
        cost_unknown=tally.cost_unknown,
        input_tokens=tally.input_tokens,
        output_tokens=tally.output_tokens,
        duration_ms_p50=tally.durations.percentile(0.5),
        duration_ms_p95=tally.durations.percentile(0.95),
        ttft_ms_p50=tally.ttfts.percentile(0.5),
        ttft_ms_p95=tally.ttfts.percentile(0.95),
        grounded_share=tally.grounded_parts / SHARE_PARTS / tally.grounded if tally.grounded else None,
        guard_hits=tally.guard_hits,
        grounded_answers=tally.grounded,
    )
