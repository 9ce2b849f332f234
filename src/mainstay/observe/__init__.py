"""Observe: spans from every request and every OpenTelemetry client, durable at once, searchable in a second.

A finished trace goes `TraceBuilder` → `Recorder` → `Spool` (fsynced) → `Drain` → `TraceStore`; `otlp` brings
spans in from outside and sends copies out; `Metrics` counts for Prometheus.
"""

from mainstay.observe import otlp
from mainstay.observe.builder import Step, TraceBuilder
from mainstay.observe.drain import Drain
from mainstay.observe.messages import last_said, message_text
from mainstay.observe.metrics import Metrics
from mainstay.observe.normalize import MAPPING_VERSION, normal_attributes, normalize_span
from mainstay.observe.otlp import OtlpExporter
from mainstay.observe.recorder import Recorder
from mainstay.observe.redact import redact_content
from mainstay.observe.saving_store import Savings
from mainstay.observe.spool import Spool
from mainstay.observe.store import TraceStore
from mainstay.observe.types import (
    Attr,
    AttributeValue,
    RollUp,
    Span,
    SpanSink,
    TraceFilter,
    TraceRow,
    WaterfallRow,
)
from mainstay.observe.waterfall import waterfall

__all__ = [
    "MAPPING_VERSION",
    "Attr",
    "AttributeValue",
    "Drain",
    "Metrics",
    "OtlpExporter",
    "Recorder",
    "RollUp",
    "Savings",
    "Span",
    "SpanSink",
    "Spool",
    "Step",
    "TraceBuilder",
    "TraceFilter",
    "TraceRow",
    "TraceStore",
    "WaterfallRow",
    "last_said",
    "message_text",
    "normal_attributes",
    "normalize_span",
    "otlp",
    "redact_content",
    "waterfall",
]
