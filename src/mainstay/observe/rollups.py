"""Charts: trace rows into buckets of time, by app and release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mainstay.observe.types import RollUp


class ChartRow(NamedTuple):
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


def roll_up(rows: Iterable[ChartRow], bucket_ns: int, by_release: bool) -> list[RollUp]:
    """Buckets in order of time, app, release. Percentiles are exact; a bucket starts at a multiple of its width."""
    groups: dict[tuple[int, str | None, int | None], list[ChartRow]] = {}
    for row in rows:
        bucket = row.start_ns - row.start_ns % bucket_ns
        groups.setdefault((bucket, row.app, row.release if by_release else None), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or "", item[0][2] or 0))
    return [_bucket(*key, group) for key, group in ordered]


def _bucket(start_ns: int, app: str | None, release: int | None, rows: Sequence[ChartRow]) -> RollUp:
    durations = [row.duration_ms for row in rows]
    ttfts = _known(row.ttft_ms for row in rows)
    shares = _known(row.grounded_share for row in rows)
    return RollUp(
        bucket_start_ns=start_ns,
        app=app,
        release=release,
        requests=len(rows),
        errors=sum(row.error for row in rows),
        cost_nusd=sum(row.cost_nusd or 0 for row in rows),
        cost_unknown=sum(row.cost_nusd is None for row in rows),
        input_tokens=sum(row.input_tokens or 0 for row in rows),
        output_tokens=sum(row.output_tokens or 0 for row in rows),
        duration_ms_p50=percentile(durations, 0.5),
        duration_ms_p95=percentile(durations, 0.95),
        ttft_ms_p50=percentile(ttfts, 0.5),
        ttft_ms_p95=percentile(ttfts, 0.95),
        grounded_share=sum(shares) / len(shares) if shares else None,
        guard_hits=sum(row.guard_hits for row in rows),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def percentile(values: Sequence[float], share: float) -> float | None:
    """Linear interpolation between order statistics (Hyndman and Fan 1996, type 7); None without values."""
    if not values:
        return None
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
