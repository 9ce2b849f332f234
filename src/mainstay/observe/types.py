"""Nouns of observability: spans, list rows, filters. Attribute names follow OpenTelemetry GenAI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from mainstay.core.values import value

AttributeValue = str | int | float | bool | None | list[Any] | dict[str, Any]


class Attr:
    """Span attribute names. `gen_ai.*` is OpenTelemetry's; `mainstay.*` is ours."""

    OPERATION: Final = "gen_ai.operation.name"  # chat, embeddings, retrieval, invoke_agent
    PROVIDER: Final = "gen_ai.provider.name"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    INPUT_MESSAGES: Final = "gen_ai.input.messages"  # list of {role, content}
    OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
    CONVERSATION: Final = "gen_ai.conversation.id"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    USER: Final = "user.id"
    ERROR_TYPE: Final = "error.type"
    APP: Final = "mainstay.app"
    RELEASE: Final = "mainstay.release"  # number, int
    RELEASE_DIGEST: Final = "mainstay.release.digest"
    ENVIRONMENT: Final = "mainstay.environment"
    KEY: Final = "mainstay.key.id"
    COST_NUSD: Final = "mainstay.cost_nusd"  # absent = unknown
    CACHE: Final = "mainstay.cache"  # hit, miss, bypass
    SAVED_NUSD: Final = "mainstay.saved_nusd"  # what an answer from the cache cost when it was made
    TTFT_MS: Final = "mainstay.ttft_ms"
    GUARD: Final = "mainstay.guard.findings"  # list of findings as dicts
    GROUNDED_SHARE: Final = "mainstay.grounding.supported_share"  # of the model's sentences, 0-1
    ANSWERED_BY: Final = "mainstay.answered_by"  # model that wrote what the user read
    CITATIONS: Final = "mainstay.citations"  # list of citations as dicts
    PASSAGES: Final = "mainstay.retrieval.passages"
    REPLAY_OF: Final = "mainstay.replay_of"  # trace id


@value
class Span:
    """A finished span. Times are nanoseconds since 1970 UTC; ids are lower-case hex (W3C).

    An event is {"name": str, "time_ns": int, "attributes": {…}}, a link {"trace_id", "span_id", "attributes"}.
    The instrumentation scope is in `resource` as `otel.scope.name` and `otel.scope.version`, the names that
    OpenTelemetry gives them outside OTLP.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    kind: Literal["internal", "server", "client", "producer", "consumer"] = "internal"
    status: Literal["unset", "ok", "error"] = "unset"
    status_message: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    resource: Mapping[str, AttributeValue] = field(default_factory=dict)
    links: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A trace in a list. Unknown is None, never zero. Previews hold at most 200 characters."""

    trace_id: str
    start_ns: int
    duration_ms: float
    name: str
    app: str | None
    release: int | None
    environment: str | None
    model: str | None
    provider: str | None
    user: str | None
    key: str | None
    status: Literal["ok", "error"]
    question: str
    answer: str
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    ttft_ms: float | None
    grounded_share: float | None
    cache: str | None
    guard_hits: int
    spans: int
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """What a list of traces shows. None means any."""

    app: str | None = None
    release: int | None = None
    model: str | None = None
    status: Literal["ok", "error"] | None = None
    user: str | None = None
    cost_nusd_min: int | None = None
    duration_ms_min: float | None = None
    guarded: bool | None = None
    text: str | None = None
    start_ns_min: int | None = None
    start_ns_max: int | None = None
    environment: str | None = None
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class RollUp:
    """One bucket of a chart for one app and release. Percentiles are milliseconds; None without data.

    `grounded_share` is the mean over the `grounded_answers` that had one.
    """

    bucket_start_ns: int
    app: str | None
    release: int | None
    requests: int
    errors: int
    cost_nusd: int
    cost_unknown: int
    input_tokens: int
    output_tokens: int
    duration_ms_p50: float | None
    duration_ms_p95: float | None
    ttft_ms_p50: float | None
    ttft_ms_p95: float | None
    grounded_share: float | None
    guard_hits: int
    grounded_answers: int = 0


@dataclass(frozen=True, slots=True)
class WaterfallRow:
    """A span as a bar: nested `depth` deep, starting `offset_ms` after the trace's first span.

    `offset_share` and `share` are the bar's left edge and width as parts (0-1) of the whole trace.
    `orphan` is True when its parent is not there (not arrived yet, or lost).
    """

    span: Span
    depth: int
    offset_ms: float
    duration_ms: float
    share: float
    offset_share: float
    orphan: bool


class SpanSink(Protocol):
    """Takes finished spans without waiting for a database. Safe from any thread."""

    def record(self, spans: list[Span]) -> None: ...
