"""Charts drawn on the server as SVG. Geometry is in attributes, colour in CSS: no inline style anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Points = Sequence[float | None]
_WIDTH, _HEIGHT = 120.0, 28.0


def spark_line(values: Points, label: str, top: float | None = None) -> Markup:
    """A line through time, zero-based; gaps where nothing was measured, a dot for a lone point."""
    known = [v for v in values if v is not None]
    if not known:
        return _spark_frame(Markup(""), label)
    high = max(top or 0.0, *known) or 1.0
    step = _WIDTH / max(len(values) - 1, 1)
    parts = [_run(run, step, high) for run in _runs(values)]
    return _spark_frame(Markup("").join(parts), label)


def spark_bars(values: Points, label: str) -> Markup:
    """A count per bucket as bars, zero-based; an empty bucket keeps a hairline."""
    high = max((v for v in values if v is not None), default=0.0) or 1.0
    slot = _WIDTH / max(len(values), 1)
    bars = []
    for index, value in enumerate(values):
        height = max((value or 0.0) / high * (_HEIGHT - 2), 2.0 if value else 0.75)
        kind = "some" if value else "zero"
        bars.append(
            Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
                kind, index * slot, _HEIGHT - height, slot * 0.72, height
            )
        )
    return _spark_frame(Markup("").join(bars), label)


def _spark_frame(inside: Markup, label: str) -> Markup:
    return Markup(
        '<svg class="spark" viewBox="0 0 {:.0f} {:.0f}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<line class="base" x1="0" x2="{:.0f}" y1="{:.1f}" y2="{:.1f}"/>{}</svg>'
    ).format(_WIDTH, _HEIGHT, label, _WIDTH, _HEIGHT - 0.5, _HEIGHT - 0.5, inside)


def _runs(values: Points) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index, value))
    return [run for run in runs if run]


def _run(run: list[tuple[int, float]], step: float, high: float) -> Markup:
    places = [(i * step, 2 + (1 - v / high) * (_HEIGHT - 4)) for i, v in run]
    if len(places) == 1:
        x, y = places[0]
        return Markup('<rect class="dot" x="{:.2f}" y="{:.2f}" width="3" height="3"/>').format(
            min(max(x - 1.5, 0), _WIDTH - 3), min(max(y - 1.5, 0), _HEIGHT - 3)
        )
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    return Markup('<polyline points="{}"/>').format(text)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `label` under it, `value` None when nothing was measured, `shown` its text."""

    label: str
    value: float | None
    shown: str


def bar_chart(bars: Sequence[Bar], label: str, show_value: Callable[[float], str]) -> Markup:
    """Counts or amounts per period, zero-based, three grid lines, labels on both axes.

    Only the plot is stretched; the labels are HTML, so that they keep their size at any width.
    """
    high = _round_up(max((b.value or 0.0 for b in bars), default=0.0))
    slot = 1000 / max(len(bars), 1)
    drawn = Markup("").join(_bar(bar, i * slot, slot, high) for i, bar in enumerate(bars))
    lines = Markup("").join(
        Markup('<line class="grid" x1="0" x2="1000" y1="{0}" y2="{0}"/>').format(y) for y in (0.5, 50, 99.5)
    )
    scale = Markup("").join(Markup("<span>{}</span>").format(show_value(high * p)) for p in (1.0, 0.5, 0.0))
    last = max(len(bars) - 1, 0)
    marks = sorted({round(last * part / 4) for part in range(5)}) if bars else []
    dates = Markup("").join(Markup("<span>{}</span>").format(bars[i].label) for i in marks)
    return Markup(
        '<div class="chart"><div class="scale" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
        '<div class="dates" aria-hidden="true">{}</div></div>'
    ).format(scale, label, lines, drawn, dates)


def _bar(bar: Bar, x: float, slot: float, high: float) -> Markup:
    height = max((bar.value or 0.0) / high * 99, 1.0) if bar.value else 0.0
    return Markup(
        '<g><title>{}: {}</title><rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/></g>'
    ).format(bar.label, bar.shown, x + slot * 0.14, 99.5 - height, slot * 0.72, height)


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten, so that the axis ends on a round number."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return next(power * m for m in (1, 2, 5, 10) if power * m >= value * 0.999_999)


def interval(value: float | None, low_high: tuple[float, float] | None, label: str) -> Markup:
    """An estimate on 0-1: a dot, its 95 % interval as a bar, ticks at 0, ½ and 1."""
    if value is None:
        return Markup("")
    x, bar = 4 + value * 152, Markup("")
    if low_high is not None:
        low, high = (4 + min(max(end, 0.0), 1.0) * 152 for end in low_high)
        bar = Markup('<rect class="range" x="{:.1f}" y="6" width="{:.1f}" height="4" rx="2"/>').format(
            low, max(high - low, 1.0)
        )
    ticks = Markup("").join(
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="3" y2="13"/>').format(t) for t in (4, 80, 156)
    )
    return Markup(
        '<svg class="interval" viewBox="0 0 160 16" role="img" aria-label="{}">{}'
        '<line class="grid" x1="4" x2="156" y1="8" y2="8"/>{}<circle cx="{:.1f}" cy="8" r="3.5"/></svg>'
    ).format(label, ticks, bar, x)


def difference(value: float | None, low_high: tuple[float, float] | None, label: str) -> Markup:
    """A paired difference on -1…1 around a zero line, with its interval."""
    if value is None or low_high is None:
        return Markup("")
    middle, reach = 80.0, 72.0
    low, high, at = (middle + min(max(v, -1.0), 1.0) * reach for v in (*low_high, value))
    return Markup(
        '<svg class="interval" viewBox="0 0 160 16" role="img" aria-label="{}">'
        '<line class="grid" x1="4" x2="156" y1="8" y2="8"/><line class="zero" x1="80" x2="80" y1="1" y2="15"/>'
        '<rect class="range" x="{:.1f}" y="6" width="{:.1f}" height="4" rx="2"/>'
        '<circle cx="{:.1f}" cy="8" r="3.5"/></svg>'
    ).format(label, low, max(high - low, 1.0), at)


def left_bar(share: float, condition: str) -> Markup:
    """What is left of a budget, a share of 1; a text beside it says the same."""
    return Markup(
        '<svg class="left-bar {}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="whole" width="100" height="6"/><rect width="{:.2f}" height="6"/></svg>'
    ).format(condition, min(max(share, 0.0), 1.0) * 100)


def span_bar(start: float, width: float, kind: str) -> Markup:
    """One step of a waterfall: `start` and `width` are shares of the whole trace."""
    return Markup(
        '<svg class="span-bar {}" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect x="{:.2f}" y="0" width="{:.2f}" height="10"/></svg>'
    ).format(kind, min(start, 0.997) * 1000, max(width * 1000, 3.0))
