"""Prometheus metrics, named after OpenTelemetry's GenAI conventions where they have a name."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mainstay.core.money import NUSD_PER_USD

# Bucket bounds as semantic-conventions advises for each instrument.
DURATION_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_BUCKETS = tuple(4**n for n in range(14))


class Metrics:
    """Every metric of one process, in a registry of its own. Thread-safe. Unknown figures are left out."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._calls: dict[tuple[str, str, str], _CallMetrics] = {}
        call = ["app", "release", "model"]
        self._requests = Counter(
            "mainstay_requests", "Requests answered.", [*call, "status"], registry=registry
        )
        self._duration_s = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request's arrival to its last byte.",
            [*call, "status"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._ttft_s = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request's arrival to the first token of its answer.",
            call,
            buckets=TTFT_BUCKETS_S,
            registry=registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request, by type.",
            [*call, "gen_ai_token_type"],
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self._cost_usd = Counter("mainstay_cost_usd", "Known cost in dollars.", call, registry=registry)
        self._cost_unknown = Counter(
            "mainstay_cost_unknown", "Requests whose cost is not known.", call, registry=registry
        )
        self._saved_usd = Counter(
            "mainstay_cache_saved_usd",
            "Dollars that cached answers cost when they were made.",
            ["app"],
            registry=registry,
        )
        self._cache = Counter("mainstay_cache", "Cache look-ups.", ["app", "outcome"], registry=registry)
        self._guard = Counter(
            "mainstay_guard_findings",
            "What guards found.",
            ["app", "rail", "check", "action"],
            registry=registry,
        )
        self._sentences = Counter(
            "mainstay_grounding_sentences",
            "Sentences of answers, checked against their sources.",
            ["app", "supported"],
            registry=registry,
        )
        self._spans_received = Counter("mainstay_spans_received", "Spans taken over OTLP.", registry=registry)
        self._spans_rejected = Counter(
            "mainstay_spans_rejected", "Malformed spans refused over OTLP.", registry=registry
        )
        self._spans_dropped = Counter(
            "mainstay_spans_dropped", "Spans lost, by where.", ["where"], registry=registry
        )
        self._pending = Gauge(
            "mainstay_spool_pending_bytes", "Recorded and not yet in the trace store.", registry=registry
        )

    def observe_request(
        self,
        *,
        app: str | None,
        release: int | None,
        model: str | None,
        status: str,
        duration_s: float,
        ttft_s: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_nusd: int | None = None,
        cache: str | None = None,
    ) -> None:
        """Count one request. `status` is `ok` or the error's code; None is a label's empty value."""
        of_call = self._of((app or "", "" if release is None else str(release), model or ""))
        requests, duration = of_call.outcome(status)
        requests.inc()
        duration.observe(duration_s)
        if ttft_s is not None:
            of_call.ttft.observe(ttft_s)
        if input_tokens is not None:
            of_call.input_tokens.observe(input_tokens)
        if output_tokens is not None:
            of_call.output_tokens.observe(output_tokens)
        if cost_nusd is None:
            of_call.cost_unknown.inc()
        else:
            of_call.cost_usd.inc(cost_nusd / NUSD_PER_USD)
        if cache is not None:
            of_call.cache(cache).inc()

    def _of(self, call: tuple[str, str, str]) -> _CallMetrics:
        """Finding a metric's child by its labels costs more than counting: children are found once."""
        found = self._calls.get(call)
        if found is None:
            found = self._calls[call] = _CallMetrics(self, call)
        return found

    def observe_saving(self, *, app: str | None, saved_nusd: int) -> None:
        """An answer came from the cache and not from a model."""
        self._saved_usd.labels(app or "").inc(saved_nusd / NUSD_PER_USD)

    def observe_guard(self, *, app: str | None, rail: str, check: str, action: str, count: int = 1) -> None:
        self._guard.labels(app or "", rail, check, action).inc(count)

    def observe_grounding(self, *, app: str | None, supported: int, unsupported: int) -> None:
        """Numbers of sentences of one answer."""
        self._sentences.labels(app or "", "true").inc(supported)
        self._sentences.labels(app or "", "false").inc(unsupported)

    def observe_ingest(self, *, accepted: int, rejected: int) -> None:
        """Spans of one OTLP request."""
        self._spans_received.inc(accepted)
        self._spans_rejected.inc(rejected)

    def dropped(self, where: str) -> Callable[[int], None]:
        """The `on_drop` of a recorder (`spool`), drain (`store`) or exporter (`export`)."""
        return self._spans_dropped.labels(where).inc

    def watch_spool(self, pending_bytes: Callable[[], int]) -> None:
        """Read the spool's backlog whenever metrics are rendered."""
        self._pending.set_function(pending_bytes)

    def render(self) -> bytes:
        """Prometheus text; serve it with `content_type`."""
        return generate_latest(self.registry)


class _CallMetrics:
    """The children of one (app, release, model)."""

    def __init__(self, metrics: Metrics, call: tuple[str, str, str]) -> None:
        self._metrics = metrics
        self._call = call
        self._outcomes: dict[str, tuple[Counter, Histogram]] = {}
        self._caches: dict[str, Counter] = {}
        self.ttft = metrics._ttft_s.labels(*call)
        self.input_tokens = metrics._tokens.labels(*call, "input")
        self.output_tokens = metrics._tokens.labels(*call, "output")
        self.cost_usd = metrics._cost_usd.labels(*call)
        self.cost_unknown = metrics._cost_unknown.labels(*call)

    def outcome(self, status: str) -> tuple[Counter, Histogram]:
        found = self._outcomes.get(status)
        if found is None:
            requests = self._metrics._requests.labels(*self._call, status)
            found = self._outcomes[status] = (requests, self._metrics._duration_s.labels(*self._call, status))
        return found

    def cache(self, outcome: str) -> Counter:
        found = self._caches.get(outcome)
        if found is None:
            found = self._caches[outcome] = self._metrics._cache.labels(self._call[0], outcome)
        return found
