"""How numbers and times read on a page: `312 ms`, `$0.0021`, `12.4k`, `3 min ago`.

Every function takes None for "not measured"; the page then shows a dash with the reason, never a zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

from mainstay.core.clock import US_PER_S, to_datetime, to_iso
from mainstay.core.content import short
from mainstay.core.money import show_usd

_STEPS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"))


def duration_text(ms: float) -> str:
    """`<0.1 ms`, `0.4 ms`, `312 ms`, `1.24 s`, `2 min 5 s`."""
    if ms < 0.05:
        return "<0.1 ms"
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_995:
        return f"{ms / 1000:.2f} s" if ms < 9_995 else f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes:,} min {seconds} s"


def count_text(value: float) -> str:
    """`947`, `12.4k`, `3.1M`; whole numbers below ten thousand stay exact."""
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{unit}"
    raise AssertionError(value)


def bytes_text(size: int) -> str:
    """`812 B`, `41.2 KiB`, `3.0 MiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def share_text(value: float) -> str:
    """A share of 1 as per cent: `0 %`, `0.4 %`, `97 %`, `106 %`; 100 % only when it is exactly that."""
    percent = value * 100
    if 0 < percent < 1:
        return f"{max(percent, 0.1):.1f} %"
    if 99 < percent < 100:
        return f"{min(percent, 99.9):.1f} %"
    if 100 < percent < 101:
        return f"{max(percent, 100.1):.1f} %"
    return f"{percent:,.0f} %"


def score_text(value: float) -> str:
    return f"{value:.2f}"


def ago_text(at_us: int, now_us: int) -> str:
    """`just now`, `3 min ago`, `in 2 d`."""
    seconds = (now_us - at_us) / US_PER_S
    ahead, size = seconds < 0, abs(seconds)
    for step, unit in _STEPS:
        if size >= step:
            amount = f"{int(size // step)} {unit}"
            return f"in {amount}" if ahead else f"{amount} ago"
    return "in a moment" if ahead else "just now"


def clock_text(at_us: int) -> str:
    """`24 Nov 2026 10:08:03 UTC`."""
    return to_datetime(at_us).strftime("%d %b %Y %H:%M:%S UTC").lstrip("0")


def when(at_us: int, now_us: int) -> Markup:
    """A `<time>`: relative to read, absolute on hover and for machines."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        to_iso(at_us), clock_text(at_us), ago_text(at_us, now_us)
    )


def dash(reason: str) -> Markup:
    """Not measured: a dash whose reason is on hover and is read aloud."""
    return Markup(
        '<span class="none" title="{0}"><span aria-hidden="true">–</span><span class="vh">{0}</span></span>'
    ).format(reason)


def duration(ms: float | None, reason: str = "not measured") -> Markup:
    return dash(reason) if ms is None else escape(duration_text(ms))


def count(value: float | None, reason: str = "not measured") -> Markup:
    return dash(reason) if value is None else escape(count_text(value))


def money(nusd: int | None, reason: str = "price unknown") -> Markup:
    return dash(reason) if nusd is None else escape(show_usd(nusd))


def share(value: float | None, reason: str = "not measured") -> Markup:
    return dash(reason) if value is None else escape(share_text(value))


def score(value: float | None, reason: str = "not measured") -> Markup:
    return dash(reason) if value is None else escape(score_text(value))


def size(value: int | None, reason: str = "unknown") -> Markup:
    return dash(reason) if value is None else escape(bytes_text(value))


def plural(amount: int, one: str, many: str | None = None) -> str:
    """`1 request`, `2 requests`, `0 requests`."""
    return f"{count_text(amount)} {one if amount == 1 else many or one + 's'}"


def dotted(name: str) -> Markup:
    """A dotted name that may break at its dots."""
    return Markup(".<wbr>").join(name.split("."))


_ID = re.compile(r"[a-z]+_[0-9a-zA-Z]{16,}")


def id_text(text: str) -> str:
    """A digest or an id of ours cut short, so that it fits a line: `user_01a20d66…`; other text as it is."""
    if text.startswith("sha256:"):
        return short(text)
    if not _ID.fullmatch(text):
        return text
    kind, _, digits = text.partition("_")
    return f"{kind}_{digits[:8]}…"


def detail_name(key: str) -> str:
    """The name of an audit detail for people: the unit stands with the value."""
    return key.removesuffix("_nusd").removesuffix("_at_us").replace("_", " ")


def brief(value: object, key: str = "") -> str:
    """A JSON value in one line for people: digests cut short, times and money as such, lists spelled out."""
    if isinstance(value, str):
        return id_text(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {brief(v, str(k))}" for k, v in value.items() if v not in (None, "", []))
    if isinstance(value, list | tuple):
        return ", ".join(brief(item) for item in value)
    if isinstance(value, int) and key.endswith("_nusd"):
        return show_usd(value)
    if isinstance(value, int) and key.endswith("_at_us"):
        return clock_text(value)
    return str(value)
