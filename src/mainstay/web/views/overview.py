"""The overview: the last 24 hours of each app in seven numbers, and what is wrong in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlencode

from markupsafe import Markup

from mainstay.core.errors import NotFound
from mainstay.core.money import show_usd
from mainstay.observe import TraceStore
from mainstay.observe.types import RollUp, TraceFilter, TraceRow
from mainstay.services import LimitsInUse, Services
from mainstay.web import formats
from mainstay.web.changes import Earlier, difference, points, relative
from mainstay.web.charts import spark_bars, spark_line
from mainstay.web.views.budgets import Budget, budgets, of_app
from mainstay.web.views.failures import Failed, Failure, failed_between, failures_of

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HOURS = 24
PRODUCTION = "production"

Hours = Sequence[RollUp | None]

ERROR_RATE_BAD = 0.05
ERROR_RATE_RISK = 0.01
GROUNDED_RISK = 0.8


BEFORE = Earlier("in the 24 hours before", "not measured in the 24 hours before, or not in these")
YESTERDAY = Earlier(
    "yesterday by this time", "not every price is known for today and for yesterday by this time"
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of an app: its text, how it moved, its 24 hours, and where it comes from."""

    name: str
    value: Markup
    change: Markup
    spark: Markup
    state: str = ""
    """`bad`, `risk` or nothing."""
    note: str = ""
    hint: str = ""
    """What the note means, on hover."""


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
    why: Mapping[str, Failure]
    """By trace id, of the latest that ended in an error."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """An app's roll-ups: by hour and in sum, and each sum for the same time a day earlier. None: no request."""

    hours: Hours
    last: RollUp | None
    before: RollUp | None
    today: RollUp | None
    yesterday: RollUp | None
    refused: int | None = 0
    """Errors of the last 24 hours that were the caller's doing, no longer counted in `errors`; None: not told apart."""
    broken_off: int = 0


def overview(parts: Services, now_us: int, limits: LimitsInUse) -> Overview:
    numbers = _numbers(parts.traces, now_us)
    names: list[str | None] = [*parts.delivery.apps()]
    asked = [app for app, found in numbers.items() if found.last is not None]
    names += sorted(a for a in asked if a is not None and a not in names)
    names += [None] if None in asked else []
    every, keys = budgets(limits), {key.id: key for key in parts.keys.active()}
    apps: list[AppHealth] = []
    troubles: list[Trouble] = []
    for name in names:
        shown = numbers.get(name, Numbers((None,) * HOURS, None, None, None, None))
        apps.append(_health(parts, name, shown, None if name is None else of_app(every, name, keys)))
        troubles += _troubles(name, shown)
    troubles += [_near_limit(b) for b in every if b.condition]
    if (failure := parts.snapshots.failure) is not None:
        text = f"The gateway serves its last snapshot; making a new one fails: {failure.reason}."
        troubles.append(Trouble("bad", text, "/readyz", "See readiness"))
    latest = parts.traces.list(TraceFilter(), None, 6)
    why = failures_of(parts.traces, latest)
    troubles.sort(key=lambda t: t.state)  # bad before risk
    return Overview(tuple(apps), tuple(troubles), tuple(latest), why)


def _numbers(traces: TraceStore, now_us: int) -> dict[str | None, Numbers]:
    """By app. Each sum is compared with one of the same length, up to this moment a day ago."""
    end_us = (now_us // HOUR_US + 1) * HOUR_US
    start_us = end_us - DAY_US
    midnight_us = now_us // DAY_US * DAY_US
    by_app: dict[str | None, list[RollUp]] = defaultdict(list)
    for row in traces.roll_ups(start_us * 1000, end_us * 1000, 3600, by_release=False):
        by_app[row.app].append(row)
    last, before = _sums(traces, start_us, end_us), _sums(traces, start_us - DAY_US, now_us - DAY_US)
    today = _sums(traces, midnight_us, end_us)
    yesterday = _sums(traces, midnight_us - DAY_US, now_us - DAY_US)
    found = {
        app: Numbers(
            _series(by_app[app], start_us), last.get(app), before.get(app), today.get(app), yesterday.get(app)
        )
        for app in {**by_app, **before}
    }
    now = failed_between(traces, start_us, end_us)
    then = failed_between(traces, start_us - DAY_US, now_us - DAY_US)
    return {app: _told_apart(app, numbers, start_us, now, then) for app, numbers in found.items()}


def _told_apart(
    app: str | None,
    numbers: Numbers,
    start_us: int,
    now: Sequence[Failed] | None,
    then: Sequence[Failed] | None,
) -> Numbers:
    """The numbers with only the server's and the providers' failures as errors, where both days could be read."""
    if now is None or then is None:
        return replace(numbers, refused=None)
    ours = [f for f in now if f.app == app]
    earlier = [f for f in then if f.app == app and f.kind != "failed"]
    spared = [f for f in ours if f.kind != "failed"]
    hours = [
        _less(hour, sum((f.start_us - start_us) // HOUR_US == index for f in spared))
        for index, hour in enumerate(numbers.hours)
    ]
    return replace(
        numbers,
        hours=hours,
        last=_less(numbers.last, len(spared)),
        before=_less(numbers.before, len(earlier)),
        refused=sum(f.kind == "refused" for f in spared),
        broken_off=sum(f.kind == "broken off" for f in spared),
    )


def _less(found: RollUp | None, errors: int) -> RollUp | None:
    """Never below zero: a trace may have come between the two readings."""
    return replace(found, errors=max(0, found.errors - errors)) if found else None


def _sums(traces: TraceStore, start_us: int, end_us: int) -> dict[str | None, RollUp]:
    return {row.app: row for row in traces.roll_ups(start_us * 1000, end_us * 1000, None, by_release=False)}


def production_release(parts: Services, app: str) -> int | None:
    try:
        environments = parts.delivery.environments(app)
    except NotFound:
        return None
    return next((e.release for e in environments if e.name == PRODUCTION), None)


def _series(rows: Iterable[RollUp], start_us: int) -> Hours:
    series: list[RollUp | None] = [None] * HOURS
    for row in rows:
        index = (row.bucket_start_ns // 1000 - start_us) // HOUR_US
        if 0 <= index < HOURS:
            series[index] = row
    return series


def _health(parts: Services, app: str | None, shown: Numbers, budget: str | None) -> AppHealth:
    release = production_release(parts, app) if app is not None else None
    requests = shown.last.requests if shown.last else 0
    return AppHealth(app, release, (*_traffic(shown), *_worth(shown, budget)), requests)


def _traffic(shown: Numbers) -> tuple[Metric, ...]:
    """Requests, errors, time to first token."""
    hours, last, before = shown.hours, shown.last, shown.before
    requests, requests_before = _count(last, "requests"), _count(before, "requests")
    rate = _error_rate(last)
    ttft = last.ttft_ms_p95 if last else None
    worst = max((h.ttft_ms_p95 for h in hours if h and h.ttft_ms_p95 is not None), default=0.0)
    return (
        Metric(
            "Requests",
            formats.count(requests),
            relative(requests, requests_before, BEFORE, formats.count_text, "neither"),
            spark_bars([h.requests if h else None for h in hours], "Requests per hour, last 24 hours"),
        ),
        Metric(
            "Errors",
            formats.share(rate, "no requests in 24 hours"),
            points(rate, _error_rate(before), BEFORE, "bad"),
            spark_line([_error_rate(h) for h in hours], "Error rate per hour, last 24 hours", top=0.1),
            _rate_state(rate),
            note=_spared(shown),
            hint="Refused: wrong requests, keys without rights or budget, content that a policy blocks.",
        ),
        Metric(
            "First token p95",
            formats.duration(ttft, "no answer was streamed in 24 hours"),
            relative(
                ttft,
                before.ttft_ms_p95 if before else None,
                BEFORE,
                formats.duration_text,
                "bad",
                within_percent=2,  # what two percentiles, each within 1 %, may differ by
            ),
            spark_line(
                [h.ttft_ms_p95 if h else None for h in hours],
                f"95th percentile of time to first token per hour; highest {formats.duration_text(worst)}",
            ),
        ),
    )


def _worth(shown: Numbers, budget: str | None) -> tuple[Metric, ...]:
    """Cost, groundedness, guard hits."""
    hours, last, before = shown.hours, shown.last, shown.before
    grounded = last.grounded_share if last else None
    return (
        Metric(
            "Cost today",
            _cost(shown.today),
            relative(_whole_cost(shown.today), _whole_cost(shown.yesterday), YESTERDAY, _dollars, "neither"),
            spark_bars([h.cost_nusd if h else None for h in hours], "Cost per hour, last 24 hours"),
            note=budget or "",
            hint="What is spent of the app's own budgets, and of those of the API keys that may ask it, on it and on others",
        ),
        Metric(
            "Grounded",
            formats.share(grounded, "no answer's grounding was scored in 24 hours"),
            points(grounded, before.grounded_share if before else None, BEFORE, "good"),
            spark_line(
                [h.grounded_share if h else None for h in hours],
                "Share of the model's sentences that the sources support, per hour",
                top=1.0,
            ),
            note="" if grounded is None else "of the model's sentences",
            hint="Also where the model's words were taken out or replaced by the sources' own",
        ),
        Metric(
            "Guard hits",
            formats.count(_count(last, "guard_hits")),
            difference(_count(last, "guard_hits"), before.guard_hits if before else None, BEFORE, "bad"),
            spark_bars([h.guard_hits if h else None for h in hours], "Guard findings per hour"),
        ),
    )


def _count(found: RollUp | None, name: Literal["requests", "guard_hits"]) -> int:
    return getattr(found, name) if found else 0


def _error_rate(found: RollUp | None) -> float | None:
    return found.errors / found.requests if found and found.requests else None


def _whole_cost(found: RollUp | None) -> int | None:
    """The cost when every request had a price; what is a lower bound cannot be compared."""
    if found is None:
        return 0
    return None if found.cost_unknown else found.cost_nusd


def _dollars(nusd: float) -> str:
    return show_usd(round(nusd))


def _cost(today: RollUp | None) -> Markup:
    if today is None:
        return formats.money(0)
    if today.cost_unknown == today.requests:
        return formats.dash("no price is known for the models used")
    shown = formats.money(today.cost_nusd)
    if today.cost_unknown:
        title = f"{today.cost_unknown} requests had no known price and are not in this sum"
        return Markup('<span title="{0}">≥ {1}<span class="vh"> {0}</span></span>').format(title, shown)
    return shown


def _spared(shown: Numbers) -> str:
    """`7 refused, 1 broken off by the caller`: ended in an error, and not by our failing."""
    if shown.refused is None:
        return "refusals included: too many to tell apart" if shown.last and shown.last.errors else ""
    words = [f"{formats.count_text(shown.refused)} refused"] if shown.refused else []
    words += [f"{formats.count_text(shown.broken_off)} broken off by the caller"] if shown.broken_off else []
    return ", ".join(words)


def _rate_state(rate: float | None) -> str:
    if rate is None or rate < ERROR_RATE_RISK:
        return ""
    return "bad" if rate >= ERROR_RATE_BAD else "risk"


def _troubles(app: str | None, shown: Numbers) -> list[Trouble]:
    """Only what the numbers show; each leads to the requests that show it."""
    last = shown.last
    if last is None:
        return []
    name = app or "Plain model calls"
    found = []
    if state := _rate_state(_error_rate(last)):
        failed = formats.plural(last.errors, "request")
        how = "failed" if shown.refused is not None else "failed or were refused"
        more = f" ({spared})" if (spared := _spared(shown)) and shown.refused is not None else ""
        text = f"{name}: {failed} of {last.requests} {how} in the last 24 hours{more}."
        found.append(Trouble(state, text, _traces(app, "status:error"), "See the failures"))
    if last.grounded_share is not None and last.grounded_share < GROUNDED_RISK:
        text = (
            f"{name}: the sources support only {formats.share_text(last.grounded_share)} of what the model "
            "wrote; what is unsupported is handled as the app's policy says."
        )
        found.append(Trouble("risk", text, _traces(app), "See the answers"))
    return found


def _near_limit(budget: Budget) -> Trouble:
    whose = f"The {budget.state.kind} “{budget.state.scope_name}”"
    if budget.condition == "bad":
        text = f"{whose} has spent its budget ({budget.text}): its requests are refused."
    elif budget.state.hard:
        text = f"{whose} has spent {formats.share_text(budget.share)} of its budget: {budget.text}."
    else:
        text = f"{whose} has spent its soft budget ({budget.text}); nothing is refused."
    return Trouble(budget.condition, text, "/budgets", "See the budgets")


def _traces(app: str | None, *words: str) -> str:
    query = " ".join([*([f"app:{app}"] if app else []), *words])
    return "/traces?" + urlencode({"q": query}) if query else "/traces"
