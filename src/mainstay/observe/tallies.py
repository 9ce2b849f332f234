"""Counters of requests that cost a request almost nothing; they become Prometheus metrics when they are read.

prometheus_client's own histograms lock and look labels up for every value, which is felt at thousands of
requests a second. Here a request leaves a row; rows are counted together, when somebody reads or many wait.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mainstay.core.money import NUSD_PER_USD

Labels = tuple[str, str, str]
"""(app, release, model)"""

Outcome = tuple[str, str, str, str]
"""(app, release, model, status)"""

Row = tuple[Outcome, float, float | None, int | None, int | None, int | None, str | None]
"""A request: (outcome, duration_s, ttft_s, input_tokens, output_tokens, cost_nusd, cache)."""

ROWS_MAX = 500
"""How many requests wait to be counted. To count them takes a fraction of a millisecond."""

CALL_LABELS = ["app", "release", "model"]


class Histogram:
    """Counts of values up to each upper bound, as Prometheus counts."""

    __slots__ = ("_bounds", "_up_to", "count", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._up_to = [0] * len(bounds)
        self.count = 0
        self.sum = 0.0

    def observe(self, values: Iterable[float | None]) -> None:
        """Count values; None is unknown and no value."""
        known = sorted([value for value in values if value is not None])
        for i, bound in enumerate(self._bounds):
            self._up_to[i] += bisect_right(known, bound)
        self.count += len(known)
        self.sum += sum(known)

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it)."""
        bounds = [str(float(bound)) for bound in self._bounds]
        return list(zip([*bounds, "+Inf"], map(float, [*self._up_to, self.count]), strict=True))


class CallTally:
    """What was counted of one (app, release, model)."""

    __slots__ = (
        "_buckets",
        "cached",
        "cost_nusd",
        "cost_unknown",
        "input_tokens",
        "outcomes",
        "output_tokens",
        "ttft_s",
    )

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self.outcomes: dict[str, Histogram] = {}
        self.cached: Counter[str | None] = Counter()
        self.ttft_s = Histogram(buckets.ttft_s)
        self.input_tokens = Histogram(buckets.tokens)
        self.output_tokens = Histogram(buckets.tokens)
        self.cost_nusd = 0
        self.cost_unknown = 0

    def count(self, status: str, rows: Sequence[Row]) -> None:
        """Count requests that ended with the same status."""
        _, durations_s, ttfts_s, inputs, outputs, costs, caches = zip(*rows, strict=True)
        outcome = self.outcomes.get(status)
        if outcome is None:
            outcome = self.outcomes[status] = Histogram(self._buckets.duration_s)
        outcome.observe(durations_s)
        self.ttft_s.observe(ttfts_s)
        self.input_tokens.observe(inputs)
        self.output_tokens.observe(outputs)
        self.cost_nusd += sum([cost for cost in costs if cost is not None])
        self.cost_unknown += costs.count(None)
        self.cached.update(caches)


class Buckets:
    """Upper bounds of each histogram."""

    def __init__(
        self, duration_s: tuple[float, ...], ttft_s: tuple[float, ...], tokens: tuple[float, ...]
    ) -> None:
        self.duration_s = duration_s
        self.ttft_s = ttft_s
        self.tokens = tokens


class RequestTallies(Collector):
    """All of them. `observe` is safe from any thread. `label` may put another name in a model's place."""

    def __init__(self, buckets: Buckets, label: Callable[[str], str] = str) -> None:
        self._buckets = buckets
        self._label = label
        # Guards what was counted. Rows are added without it: that is one operation for the interpreter.
        self._lock = threading.Lock()
        self._calls: dict[Labels, CallTally] = {}
        self._rows: list[Row] = []

    def observe(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_MAX:
            with self._lock:
                self._count()

    def _count(self) -> None:
        rows = self._rows[:]
        del self._rows[: len(rows)]  # what came in between stays
        alike: dict[Outcome, list[Row]] = {}
        for row in rows:
            alike.setdefault(row[0], []).append(row)
        for (app, release, model, status), some in alike.items():
            self._tally((app, release, model)).count(status, some)

    def _tally(self, call: Labels) -> CallTally:
        """Kept by its label alone: there is no end of the names that callers may send."""
        tally = self._calls.get(call)
        if tally is None:
            app, release, model = call
            tally = self._calls.setdefault((app, release, self._label(model)), CallTally(self._buckets))
        return tally

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._count()
            return iter([*self._outcomes(), *self._sizes(), *self._money()])

    def _outcomes(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mainstay_requests", "Requests answered.", labels=[*CALL_LABELS, "status"]
        )
        duration = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "From the request's arrival to its last byte.",
            labels=[*CALL_LABELS, "status"],
        )
        for call, tally in self._calls.items():
            for status, seen in tally.outcomes.items():
                requests.add_metric([*call, status], seen.count)
                duration.add_metric([*call, status], seen.buckets(), seen.sum)
        yield requests
        yield duration

    def _sizes(self) -> Iterator[Metric]:
        ttft = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request's arrival to the first token of its answer.",
            labels=CALL_LABELS,
        )
        tokens = HistogramMetricFamily(
            "gen_ai_client_token_usage",
            "Tokens of a request, by type.",
            labels=[*CALL_LABELS, "gen_ai_token_type"],
        )
        for call, tally in self._calls.items():
            _add(ttft, call, tally.ttft_s)
            _add(tokens, (*call, "input"), tally.input_tokens)
            _add(tokens, (*call, "output"), tally.output_tokens)
        yield ttft
        yield tokens

    def _money(self) -> Iterator[Metric]:
        cost = CounterMetricFamily("mainstay_cost_usd", "Known cost in dollars.", labels=CALL_LABELS)
        unknown = CounterMetricFamily(
            "mainstay_cost_unknown", "Requests whose cost is not known.", labels=CALL_LABELS
        )
        cached = CounterMetricFamily("mainstay_cache", "Cache look-ups.", labels=["app", "outcome"])
        lookups: dict[tuple[str, str], int] = {}
        for call, tally in self._calls.items():
            if sum(seen.count for seen in tally.outcomes.values()) > tally.cost_unknown:
                cost.add_metric(call, tally.cost_nusd / NUSD_PER_USD)
            if tally.cost_unknown:
                unknown.add_metric(call, tally.cost_unknown)
            for outcome, count in tally.cached.items():
                if outcome is not None:
                    key = (call[0], outcome)
                    lookups[key] = lookups.get(key, 0) + count
        for key, count in lookups.items():
            cached.add_metric(key, count)
        yield cost
        yield unknown
        yield cached


def _add(family: HistogramMetricFamily, labels: Iterable[str], seen: Histogram) -> None:
    """A histogram without a value is left out: unknown is not zero."""
    if seen.count:
        family.add_metric(list(labels), seen.buckets(), seen.sum)
