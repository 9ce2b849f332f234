"""Prometheus metrics, named after OpenTelemetry's GenAI conventions where they have a name.

Labels are bounded: callers may ask for any model name, so names that nobody configured or listed count as `other`.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mainstay.core.money import NUSD_PER_USD
from mainstay.observe.tallies import Buckets, RequestTallies

# Bucket bounds as semantic-conventions advises for each instrument.
DURATION_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_BUCKETS = tuple(4**n for n in range(14))
OTHER = "other"


class Metrics:
    """Every metric of one process, in a registry of its own. Thread-safe. Unknown figures are left out."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._knows_model: Callable[[str], bool] | None = None
        buckets = Buckets(DURATION_BUCKETS_S, TTFT_BUCKETS_S, TOKEN_BUCKETS)
        self._requests = RequestTallies(buckets, self.model_label)
        registry.register(self._requests)
        self._saved_usd = Counter(
            "mainstay_cache_saved_usd",
            "Dollars that cached answers cost when they were made.",
            ["app"],
            registry=registry,
        )
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
        outcome = (app or "", "" if release is None else str(release), model or "", status)
        self._requests.observe((outcome, duration_s, ttft_s, input_tokens, output_tokens, cost_nusd, cache))

    def know_models(self, knows: Callable[[str], bool]) -> None:
        """Which model names get series of their own; without it, every name does."""
        self._knows_model = knows

    def model_label(self, model: str) -> str:
        """The name, or `other` for one that is not known."""
        known = self._knows_model is None or not model or self._knows_model(model)
        return model if known else OTHER

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
