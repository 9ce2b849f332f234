"""Counts each finished trace for Prometheus on its way to the recorder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainstay.observe import Attr, Metrics, Span, SpanSink


class MeteredSink:
    """A SpanSink in front of another; every hand-over of the gateway is one whole trace."""

    def __init__(self, sink: SpanSink, metrics: Metrics) -> None:
        self._sink = sink
        self._metrics = metrics

    def record(self, spans: list[Span]) -> None:
        self._sink.record(spans)
        ids = {span.span_id for span in spans}
        for root in (span for span in spans if span.parent_id not in ids):
            self._count(root, spans)

    def _count(self, root: Span, spans: Sequence[Span]) -> None:
        get = root.attributes.get
        app = _text(get(Attr.APP))
        calls = [s.attributes for s in spans if s.kind == "client"]
        costs = [_whole(c.get(Attr.COST_NUSD)) for c in calls] or [0]
        ttft_ms = get(Attr.TTFT_MS)
        self._metrics.observe_request(
            app=app,
            release=_whole(get(Attr.RELEASE)),
            model=_text(get(Attr.REQUEST_MODEL)),
            status="ok" if root.status != "error" else (_text(get(Attr.ERROR_TYPE)) or "error"),
            duration_s=(root.end_ns - root.start_ns) / 1e9,
            ttft_s=ttft_ms / 1000 if isinstance(ttft_ms, int | float) else None,
            input_tokens=_total(_whole(c.get(Attr.INPUT_TOKENS)) for c in calls),
            output_tokens=_total(_whole(c.get(Attr.OUTPUT_TOKENS)) for c in calls),
            cost_nusd=None if None in costs else _total(costs),
            cache=_text(get(Attr.CACHE)),
        )
        findings = get(Attr.GUARD)
        for found in findings if isinstance(findings, list) else []:
            self._metrics.observe_guard(
                app=app, rail=found["rail"], check=found["check"], action=found["action"]
            )
        supported, scored = (
            _whole(get("mainstay.grounding.supported")),
            _whole(get("mainstay.grounding.scored")),
        )
        if supported is not None and scored is not None:
            self._metrics.observe_grounding(app=app, supported=supported, unsupported=scored - supported)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _total(values: Iterable[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None
