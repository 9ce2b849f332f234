"""Why requests ended in an error, and whose doing it was: the caller's, or the server's and the providers'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mainstay.observe import TraceStore
from mainstay.observe.types import Attr, Span, TraceFilter, TraceRow

Kind = Literal["failed", "refused", "broken off"]

READ_MAX = 500
"""Traces read to tell failures from refusals: their list rows do not hold the error's code."""

CALLERS = frozenset(
    {
        "budget_in_flight",
        "conflict",
        "content_policy_violation",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "method_not_allowed",
        "model_not_allowed",
        "model_not_found",
        "not_found",
        "permission_denied",
        "price_unknown",
        "rate_limit_exceeded",
        "request_exceeds_budget",
        "request_too_large",
    }
)
"""Codes of 4xx answers: another request, or another key, would have been answered."""


@dataclass(frozen=True, slots=True)
class Failure:
    """`code` as the error body had it; None when the spans do not say."""

    code: str | None

    @property
    def kind(self) -> Kind:
        if self.code == "cancelled":
            return "broken off"
        return "refused" if self.code in CALLERS else "failed"


def failure_of(spans: Sequence[Span]) -> Failure:
    """The root's `error.type`, else that of the first step that failed."""
    root = next((s for s in spans if s.parent_id is None), None)
    failed = [s for s in (*([root] if root else []), *spans) if s.status == "error"]
    codes = (s.attributes.get(Attr.ERROR_TYPE) for s in failed)
    return Failure(next((code for code in codes if isinstance(code, str) and code), None))


def failures_of(traces: TraceStore, rows: Iterable[TraceRow]) -> dict[str, Failure]:
    """By trace id, of those rows that ended in an error."""
    return {row.trace_id: failure_of(traces.get(row.trace_id)) for row in rows if row.status == "error"}


@dataclass(frozen=True, slots=True)
class Failed:
    """One trace that ended in an error."""

    app: str | None
    start_us: int
    kind: Kind


def failed_between(traces: TraceStore, start_us: int, end_us: int) -> tuple[Failed, ...] | None:
    """Every trace of the time that ended in an error; None when there are more than can be read for a page."""
    wanted = TraceFilter(status="error", start_ns_min=start_us * 1000, start_ns_max=end_us * 1000 - 1)
    rows = traces.list(wanted, None, READ_MAX + 1)
    if len(rows) > READ_MAX:
        return None
    why: Mapping[str, Failure] = failures_of(traces, rows)
    return tuple(Failed(row.app, row.start_ns // 1000, why[row.trace_id].kind) for row in rows)
