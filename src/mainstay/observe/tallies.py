"""Counters of requests that cost a request almost nothing; they become Prometheus metrics when they are read.

prometheus_client's own histograms lock and look labels up for every value, which is felt at thousands of
requests a second. Counting here is a few additions under one lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mainstay.core.money import NUSD_PER_USD

Labels = tuple[str, str, str]
"""(app, release, model)"""

CALL_LABELS = ["app", "release", "model"]


class Histogram:
    """Counts of values by upper bound; the last is of everything above."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it), as Prometheus counts."""
        found, total = [], 0
        for bound, count in zip((*map(float, self._bounds), float("inf")), self._counts, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return found


class CallTally:
    """What was counted of one (app, release, model)."""

    __slots__ = ("cached", "cost_nusd", "cost_unknown", "input_tokens", "outcomes", "output_tokens", "ttft_s")

    def __init__(self, buckets: Buckets) -> None:
        self.outcomes: dict[str, Histogram] = {}
        self.cached: dict[str, int] = {}
        self.ttft_s = Histogram(buckets.ttft_s)
        self.input_tokens = Histogram(buckets.tokens)
        self.output_tokens = Histogram(buckets.tokens)
        self.cost_nusd = 0
        self.cost_unknown = 0


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
        self._lock = threading.Lock()
        self._calls: dict[Labels, CallTally] = {}

    def observe(
        self,
        call: Labels,
        status: str,
        duration_s: float,
        ttft_s: float | None,
        input_tokens: int | None,
        output_tokens: int | None,
        cost_nusd: int | None,
        cache: str | None,
    ) -> None:
        with self._lock:
            tally = self._calls.get(call)
            if tally is None:
                tally = self._new(call)
            outcome = tally.outcomes.get(status)
            if outcome is None:
                outcome = tally.outcomes[status] = Histogram(self._buckets.duration_s)
            outcome.observe(duration_s)
            if ttft_s is not None:
                tally.ttft_s.observe(ttft_s)
            if input_tokens is not None:
                tally.input_tokens.observe(input_tokens)
            if output_tokens is not None:
                tally.output_tokens.observe(output_tokens)
            if cost_nusd is None:
                tally.cost_unknown += 1
            else:
                tally.cost_nusd += cost_nusd
            if cache is not None:
                tally.cached[cache] = tally.cached.get(cache, 0) + 1

    def _new(self, call: Labels) -> CallTally:
        """Kept by its label alone: there is no end of the names that callers may send."""
        app, release, model = call
        return self._calls.setdefault((app, release, self._label(model)), CallTally(self._buckets))

    def collect(self) -> Iterator[Metric]:
        with self._lock:
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
