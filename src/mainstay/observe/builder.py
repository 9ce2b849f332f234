"""Building one trace while a request runs: a root span and steps, handed over finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from mainstay.core.errors import MainstayError
from mainstay.core.ids import new_span_id, new_trace_id
from mainstay.observe.types import Attr, AttributeValue, Span

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
ClockNs = Callable[[], int]


def anchored_clock() -> ClockNs:
    """Nanoseconds since 1970 that only rise: wall clock at the start, monotonic clock from there."""
    wall, base = time.time_ns(), time.perf_counter_ns()
    return lambda: wall + time.perf_counter_ns() - base


class Step:
    """An open span. `step()` on it opens a child; leaving its `with` block closes it.

    An exception that leaves the block marks the span failed and goes on.
    """

    __slots__ = (
        "_attributes",
        "_end_ns",
        "_events",
        "_kind",
        "_message",
        "_name",
        "_parent_id",
        "_start_ns",
        "_status",
        "_trace",
        "span_id",
    )

    def __init__(self, trace: TraceBuilder, name: str, kind: SpanKind, parent_id: str | None) -> None:
        self.span_id = new_span_id()
        self._trace = trace
        self._name = name
        self._kind: SpanKind = kind
        self._parent_id = parent_id
        self._start_ns = trace.clock_ns()
        self._end_ns: int | None = None
        self._status: Literal["unset", "ok", "error"] = "unset"
        self._message = ""
        self._attributes: dict[str, AttributeValue] = {}
        self._events: list[dict[str, Any]] = []

    def set(self, attribute: str, value: AttributeValue) -> None:
        """Set an attribute. None means unknown and is left out."""
        if value is not None:
            self._attributes[attribute] = value

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self._events.append({"name": name, "time_ns": self._trace.clock_ns(), "attributes": attributes})

    def fail(self, error: BaseException) -> None:
        """Mark as failed: `error.type` is the stable code of our errors, else the class's name."""
        self._status, self._message = "error", str(error)
        self._attributes[Attr.ERROR_TYPE] = _error_type(error)
        self.event("exception", **{"exception.type": type(error).__name__, "exception.message": str(error)})

    def step(self, name: str, kind: SpanKind = "internal") -> Step:
        """A child span, open from now on; use as a context manager."""
        return self._trace.open(name, kind, self.span_id)

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        self.end()

    def leave_out(self) -> None:
        """Nothing came of this step that anybody would look for: no span is made of it."""
        self._trace.leave_out(self)

    def end(self) -> None:
        """Close the span; the first call counts."""
        if self._end_ns is None:
            self._end_ns = self._trace.clock_ns()

    def to_span(self) -> Span:
        assert self._end_ns is not None
        return Span(
            trace_id=self._trace.trace_id,
            span_id=self.span_id,
            parent_id=self._parent_id,
            name=self._name,
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            kind=self._kind,
            status=self._status,
            status_message=self._message,
            attributes=self._attributes,
            events=tuple(self._events),
            resource=self._trace.resource,
        )


class TraceBuilder:
    """The trace of one request. Not thread-safe; concurrent tasks of one event loop may share it.

    `parent_id` is the caller's span (W3C traceparent), if any. Steps opened on the builder are children of
    the root; steps opened on a step are its children: the nesting is explicit, so concurrent steps are right.
    """

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
        self.clock_ns = clock_ns or anchored_clock()
        self.resource = resource or {}
        self._steps: list[Step] = []
        self.root = self.open(name, kind, parent_id)

    def open(self, name: str, kind: SpanKind, parent_id: str | None) -> Step:
        """Open a span without a block; whoever opens it ends it, or `finish` does."""
        step = Step(self, name, kind, parent_id)
        self._steps.append(step)
        return step

    def set(self, attribute: str, value: AttributeValue) -> None:
        self.root.set(attribute, value)

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self.root.event(name, **attributes)

    def fail(self, error: BaseException) -> None:
        self.root.fail(error)

    def step(self, name: str, kind: SpanKind = "internal") -> Step:
        return self.open(name, kind, self.root.span_id)

    def leave_out(self, step: Step) -> None:
        self._steps.remove(step)

    def finish(self, error: BaseException | None = None) -> list[Span]:
        """Close what is open and give all spans, the root first. With `error` the root is marked failed."""
        if error is not None:
            self.fail(error)
        for step in reversed(self._steps):
            step.end()
        spans = [step.to_span() for step in self._steps]
        self._steps = []
        del self.root  # steps point back here: the cycle would be garbage that only the collector can free
        return spans


def _error_type(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return type(error).__name__
