"""Building one trace while a request runs: a root span and steps, handed over finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from mainstay.core.errors import MainstayError
from mainstay.core.ids import new_trace_id, span_ids
from mainstay.observe.types import Attr, AttributeValue, Span

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
ClockNs = Callable[[], int]


class Step:
    """An open span. `step()` on it opens a child; leaving its `with` block closes it.

    An exception that leaves the block marks the span failed and goes on.
    """

    __slots__ = (
        "_end",
        "_events",
        "_kind",
        "_message",
        "_name",
        "_parent_id",
        "_start",
        "_status",
        "_trace",
        "attributes",
        "span_id",
    )

    def __init__(self, trace: TraceBuilder, name: str, kind: SpanKind, parent_id: str | None) -> None:
        trace.steps.append(self)
        self.span_id = trace.new_span_id()
        self._trace = trace
        self._name = name
        self._kind: SpanKind = kind
        self._parent_id = parent_id
        self._start = trace.now()
        self._end: int | None = None
        self._status: Literal["unset", "ok", "error"] = "unset"
        self._message = ""
        self.attributes: dict[str, AttributeValue] = {}
        self._events: tuple[dict[str, Any], ...] = ()

    def set(self, attribute: str, value: AttributeValue) -> None:
        """Set an attribute. None means unknown and is left out."""
        if value is not None:
            self.attributes[attribute] = value

    def event(self, name: str, **attributes: AttributeValue) -> None:
        now_ns = self._trace.offset_ns + self._trace.now()
        self._events = (*self._events, {"name": name, "time_ns": now_ns, "attributes": attributes})

    def fail(self, error: BaseException) -> None:
        """Mark as failed: `error.type` is the stable code of our errors, else the class's name."""
        self._status, self._message = "error", str(error)
        self.attributes[Attr.ERROR_TYPE] = _error_type(error)
        self.event("exception", **{"exception.type": type(error).__name__, "exception.message": str(error)})

    def step(self, name: str, kind: SpanKind = "internal") -> Step:
        """A child span, open from now on; use as a context manager."""
        return Step(self._trace, name, kind, self.span_id)

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        if self._end is None:
            self._end = self._trace.now()

    def leave_out(self) -> None:
        """Nothing came of this step that anybody would look for: no span is made of it."""
        self._trace.steps.remove(self)

    def end(self) -> None:
        """Close the span; the first call counts."""
        if self._end is None:
            self._end = self._trace.now()

    def to_span(self) -> Span:
        assert self._end is not None
        trace = self._trace
        return Span(
            trace.trace_id,
            self.span_id,
            self._parent_id,
            self._name,
            trace.offset_ns + self._start,
            trace.offset_ns + self._end,
            self._kind,
            self._status,
            self._message,
            self.attributes,
            self._events,
            trace.resource,
        )


class TraceBuilder:
    """The trace of one request. Not thread-safe; concurrent tasks of one event loop may share it.

    `parent_id` is the caller's span (W3C traceparent), if any. Steps opened on the builder are children of
    the root; steps opened on a step are its children: the nesting is explicit, so concurrent steps are right.
    `clock_ns` gives nanoseconds since 1970; without it they are those of the wall clock at the trace's start,
    and only rise from there.
    """

    __slots__ = ("new_span_id", "now", "offset_ns", "resource", "root", "steps", "trace_id")

    def __init__(
        self,
        name: str,
        trace_id: str | None = None,
        parent_id: str | None = None,
        kind: SpanKind = "server",
        resource: dict[str, AttributeValue] | None = None,
        clock_ns: ClockNs | None = None,
    ) -> None:
        self.trace_id = trace_id or new_trace_id()
        self.resource = resource or {}
        self.now: ClockNs = clock_ns or time.perf_counter_ns
        self.offset_ns = 0 if clock_ns is not None else time.time_ns() - time.perf_counter_ns()
        """What `now` falls short of the time since 1970."""
        self.new_span_id = span_ids().__next__
        self.steps: list[Step] = []
        self.root = Step(self, name, kind, parent_id)

    def open(self, name: str, kind: SpanKind, parent_id: str | None) -> Step:
        """Open a span without a block; whoever opens it ends it, or `finish` does."""
        return Step(self, name, kind, parent_id)

    def set(self, attribute: str, value: AttributeValue) -> None:
        if value is not None:
            self.root.attributes[attribute] = value

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self.root.event(name, **attributes)

    def fail(self, error: BaseException) -> None:
        self.root.fail(error)

    def step(self, name: str, kind: SpanKind = "internal") -> Step:
        return Step(self, name, kind, self.root.span_id)

    def finish(self, error: BaseException | None = None) -> list[Span]:
        """Close what is open and give all spans, the root first. With `error` the root is marked failed."""
        if error is not None:
            self.fail(error)
        for step in reversed(self.steps):
            step.end()
        spans = [step.to_span() for step in self.steps]
        self.steps = []
        del self.root  # steps point back here: the cycle would be garbage that only the collector can free
        return spans


def _error_type(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return type(error).__name__
