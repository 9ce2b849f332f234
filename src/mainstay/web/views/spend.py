"""Cost per day, and per app and release, from the roll-ups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainstay.core.clock import to_datetime
from mainstay.core.money import show_usd
from mainstay.observe import Savings, TraceStore
from mainstay.observe.types import RollUp
from mainstay.web.charts import Bar, bar_chart

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class SpendLine:
    """Sums over the period. `cost_unknown` requests had no price and are not in `cost_nusd`."""

    app: str | None
    release: int | None
    requests: int
    cost_nusd: int
    cost_unknown: int
    input_tokens: int
    output_tokens: int

    @property
    def cost_per_request_nusd(self) -> int | None:
        priced = self.requests - self.cost_unknown
        return round(self.cost_nusd / priced) if priced else None


@dataclass(frozen=True, slots=True)
class DayLine:
    at_us: int
    label: str
    total: SpendLine


@dataclass(frozen=True, slots=True)
class Spend:
    chart: Markup | None
    """None when nothing was spent: a chart of zeros has no scale."""
    lines: tuple[SpendLine, ...]
    days: tuple[DayLine, ...]
    total: SpendLine
    saved: Savings
    """What answers from the cache would have cost."""


def spend(traces: TraceStore, now_us: int, days: int) -> Spend:
    end_us = (now_us // DAY_US + 1) * DAY_US
    start_us = end_us - days * DAY_US
    rows = traces.roll_ups(start_us * 1000, end_us * 1000, 86_400, by_release=True)
    by_day: dict[int, list[RollUp]] = defaultdict(list)
    by_release: dict[tuple[str | None, int | None], list[RollUp]] = defaultdict(list)
    for row in rows:
        by_day[row.bucket_start_ns // 1000 // DAY_US].append(row)
        by_release[row.app, row.release].append(row)
    first = start_us // DAY_US
    each = [_day(day, by_day.get(day, [])) for day in range(first, first + days)]
    lines = sorted((_sum(app, release, found) for (app, release), found in by_release.items()), key=_order)
    bars = [Bar(d.label, d.total.cost_nusd or None, show_usd(d.total.cost_nusd)) for d in each]
    spent = any(bar.value for bar in bars)
    title = f"Cost per day in dollars, last {days} days"
    chart = bar_chart(bars, title, lambda v: show_usd(round(v))) if spent else None
    return Spend(
        chart,
        tuple(lines),
        tuple(d for d in reversed(each) if d.total.requests),
        _sum(None, None, rows),
        traces.savings(start_us * 1000, end_us * 1000),
    )


def _day(day: int, rows: Sequence[RollUp]) -> DayLine:
    at_us = day * DAY_US
    return DayLine(at_us, to_datetime(at_us).strftime("%d %b").lstrip("0"), _sum(None, None, rows))


def _order(line: SpendLine) -> tuple[int, str, int]:
    return (-line.cost_nusd, line.app or "~", -(line.release or 0))


def _sum(app: str | None, release: int | None, rows: Sequence[RollUp]) -> SpendLine:
    return SpendLine(
        app,
        release,
        sum(r.requests for r in rows),
        sum(r.cost_nusd for r in rows),
        sum(r.cost_unknown for r in rows),
        sum(r.input_tokens for r in rows),
        sum(r.output_tokens for r in rows),
    )
