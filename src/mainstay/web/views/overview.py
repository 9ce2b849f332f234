"""The overview: the last 24 hours of each app in seven numbers, and what is wrong in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from mainstay.core.clock import to_datetime
from mainstay.core.errors import NotFound
from mainstay.observe.types import RollUp, TraceFilter, TraceRow
from mainstay.services import Services
from mainstay.web import formats
from mainstay.web.charts import spark_bars, spark_line

HOUR_US = 3_600_000_000
HOURS = 24
PRODUCTION = "production"

ERROR_RATE_BAD = 0.05
ERROR_RATE_RISK = 0.01
GROUNDED_RISK = 0.8


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of an app: its text, its 24 hours, and where it comes from."""

    name: str
    value: Markup
    spark: Markup
    state: str = ""
    """`bad`, `risk` or nothing."""


@dataclass(frozen=True, slots=True)
class AppHealth:
    """`app` None: plain model calls."""

    app: str | None
    release: int | None
    metrics: tuple[Metric, ...]
    requests: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong: `state` is `bad` or `risk`; `link` leads to the evidence."""

    state: str
    text: str
    link: str
    action: str


@dataclass(frozen=True, slots=True)
class Overview:
    apps: tuple[AppHealth, ...]
    troubles: tuple[Trouble, ...]
    latest: tuple[TraceRow, ...]


def overview(parts: Services, now_us: int) -> Overview:
    end_us = (now_us // HOUR_US + 1) * HOUR_US
    start_us = end_us - HOURS * HOUR_US
    hours = parts.traces.roll_ups(start_us * 1000, end_us * 1000, 3600, by_release=False)
    today = to_datetime(now_us).replace(hour=0, minute=0, second=0, microsecond=0)
    by_app: dict[str | None, list[RollUp]] = defaultdict(list)
    for row in hours:
        by_app[row.app].append(row)
    names: list[str | None] = [*parts.delivery.apps()]
    names += sorted(a for a in by_app if a not in names and a is not None)
    names += [None] if None in by_app else []
    apps: list[AppHealth] = []
    troubles: list[Trouble] = []
    for name in names:
        buckets = _series(by_app[name], start_us)
        health = _health(parts, name, buckets, int(today.timestamp() * 1e6))
        apps.append(health)
        troubles += _troubles(name, buckets)
    if (failure := parts.snapshots.failure) is not None:
        text = f"The gateway serves its last snapshot; making a new one fails: {failure.reason}."
        troubles.append(Trouble("bad", text, "/readyz", "See readiness"))
    latest = parts.traces.list(TraceFilter(), None, 6)
    troubles.sort(key=lambda t: t.state)  # bad before risk
    return Overview(tuple(apps), tuple(troubles), tuple(latest))


def production_release(parts: Services, app: str) -> int | None:
    try:
        environments = parts.delivery.environments(app)
    except NotFound:
        return None
    return next((e.release for e in environments if e.name == PRODUCTION), None)


Hours = Sequence[RollUp | None]


def _series(rows: Iterable[RollUp], start_us: int) -> Hours:
    series: list[RollUp | None] = [None] * HOURS
    for row in rows:
        index = (row.bucket_start_ns // 1000 - start_us) // HOUR_US
        if 0 <= index < HOURS:
            series[index] = row
    return series


def _known(hours: Hours) -> list[RollUp]:
    return [h for h in hours if h is not None]


def _sum(hours: Hours, pick: Callable[[RollUp], int]) -> int:
    return sum(pick(h) for h in _known(hours))


def _weighted(hours: Hours, pick: Callable[[RollUp], float | None]) -> float | None:
    """Mean over the hours that measured it, weighted by their requests; None when none did."""
    pairs = [(value, h.requests) for h in _known(hours) if (value := pick(h)) is not None]
    weight = sum(requests for _, requests in pairs)
    return sum(value * requests for value, requests in pairs) / weight if weight else None


def _health(parts: Services, app: str | None, hours: Hours, today_us: int) -> AppHealth:
    release = production_release(parts, app) if app is not None else None
    return AppHealth(app, release, _metrics(hours, today_us), _sum(hours, lambda h: h.requests))


def _metrics(hours: Hours, today_us: int) -> tuple[Metric, ...]:
    requests, errors = _sum(hours, lambda h: h.requests), _sum(hours, lambda h: h.errors)
    rate = errors / requests if requests else None
    worst = max((h.ttft_ms_p95 for h in _known(hours) if h.ttft_ms_p95 is not None), default=None)
    latest = next((h.ttft_ms_p95 for h in reversed(_known(hours)) if h.ttft_ms_p95 is not None), None)
    grounded = _weighted(hours, lambda h: h.grounded_share)
    today = [h for h in _known(hours) if h.bucket_start_ns // 1000 >= today_us]
    nothing = "no requests in 24 hours"
    return (
        Metric(
            "Requests",
            formats.count(requests),
            spark_bars([h.requests if h else None for h in hours], "Requests per hour, last 24 hours"),
        ),
        Metric(
            "Errors",
            formats.share(rate, nothing),
            spark_line(
                [h.errors / h.requests if h and h.requests else None for h in hours],
                "Error rate per hour, last 24 hours",
                top=0.1,
            ),
            _rate_state(rate),
        ),
        Metric(
            "First token p95",
            formats.duration(latest, "no answer was streamed in 24 hours"),
            spark_line(
                [h.ttft_ms_p95 if h else None for h in hours],
                f"95th percentile of time to first token per hour; highest {formats.duration_text(worst or 0)}",
            ),
        ),
        Metric(
            "Cost today",
            _cost(today),
            spark_bars([h.cost_nusd if h else None for h in hours], "Cost per hour, last 24 hours"),
        ),
        Metric(
            "Grounded",
            formats.share(grounded, "no answer's grounding was scored in 24 hours"),
            spark_line(
                [h.grounded_share if h else None for h in hours],
                "Share of the model's sentences that the sources support, per hour",
                top=1.0,
            ),
        ),
        Metric(
            "Guard hits",
            formats.count(_sum(hours, lambda h: h.guard_hits)),
            spark_bars([h.guard_hits if h else None for h in hours], "Guard findings per hour"),
        ),
    )


def _cost(today: Sequence[RollUp]) -> Markup:
    known = sum(h.cost_nusd for h in today)
    unknown, requests = sum(h.cost_unknown for h in today), sum(h.requests for h in today)
    if requests and unknown == requests:
        return formats.dash("no price is known for the models used")
    shown = formats.money(known)
    if unknown:
        title = f"{unknown} requests had no known price and are not in this sum"
        return Markup('<span title="{0}">≥ {1}<span class="vh"> {0}</span></span>').format(title, shown)
    return shown


def _rate_state(rate: float | None) -> str:
    if rate is None or rate < ERROR_RATE_RISK:
        return ""
    return "bad" if rate >= ERROR_RATE_BAD else "risk"


def _troubles(app: str | None, hours: Hours) -> list[Trouble]:
    """Only what the numbers show; each leads to the requests that show it."""
    name = app or "Plain model calls"
    requests, errors = _sum(hours, lambda h: h.requests), _sum(hours, lambda h: h.errors)
    found = []
    if requests and _rate_state(errors / requests):
        text = f"{name}: {formats.plural(errors, 'request')} of {requests} failed in the last 24 hours."
        state = _rate_state(errors / requests)
        found.append(Trouble(state, text, _traces(app, "status:error"), "See the failures"))
    grounded = _weighted(hours, lambda h: h.grounded_share)
    if grounded is not None and grounded < GROUNDED_RISK:
        text = (
            f"{name}: the sources support only {formats.share_text(grounded)} of what the model wrote; "
            "what is unsupported is handled as the app's policy says."
        )
        found.append(Trouble("risk", text, _traces(app), "See the answers"))
    return found


def _traces(app: str | None, *words: str) -> str:
    query = " ".join([*([f"app:{app}"] if app else []), *words])
    return "/traces?" + urlencode({"q": query}) if query else "/traces"
