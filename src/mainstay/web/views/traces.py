"""The list of traces, and one trace: what was said, why, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mainstay.delivery import Delivery
from mainstay.observe import TraceStore, waterfall
from mainstay.observe.types import Attr, Span, TraceRow, WaterfallRow
from mainstay.web.views.attempts import Attempt, Used, answered_by, attempts_of, usage_classes
from mainstay.web.views.failures import Failure, failure_of, failures_of
from mainstay.web.views.trace_query import TraceQuery
from mainstay.web.views.turns import Turn, turns

PAGE = 50

LONG = frozenset({Attr.INPUT_MESSAGES, Attr.OUTPUT_MESSAGES, Attr.CITATIONS, Attr.PASSAGES, Attr.GUARD})
"""Attributes that a step shows as blocks of their own rather than as table rows."""


@dataclass(frozen=True, slots=True)
class TracePage:
    """`older` is the address of the next page; None on the last one."""

    query: TraceQuery
    rows: tuple[TraceRow, ...]
    why: Mapping[str, Failure]
    """By trace id, of the rows that ended in an error."""
    older: str | None
    first: bool
    ever: bool
    """Whether there is any trace at all, to tell an empty store from a narrow filter."""


@dataclass(frozen=True, slots=True)
class TraceView:
    """A trace as people read it. `steps` are the waterfall; `step` the open one."""

    trace_id: str
    row: TraceRow
    root: Span
    asked: tuple[Turn, ...]
    said: tuple[Turn, ...]
    """The answer; several when several were asked for."""
    attempts: tuple[Attempt, ...]
    usage: tuple[Used, ...]
    citations: tuple[Mapping[str, Any], ...]
    guard: tuple[Mapping[str, Any], ...]
    removed: tuple[str, ...]
    fallback: str | None
    """What replaced the model's words: `extractive`, `refused` or nothing."""
    steps: tuple[WaterfallRow, ...]
    step: Span | None
    failure: Failure
    duration_ms: float
    releases: tuple[int, ...]

    def root_value(self, name: str) -> Any:
        return self.root.attributes.get(name)

    @property
    def question(self) -> str:
        """The last thing a person said; else the name of the trace's first step."""
        said = [turn for turn in self.asked if turn.content]
        asked = next((t.content for t in reversed(said) if t.role == "user"), None)
        return asked or (said[-1].content if said else self.root.name)

    @property
    def answered_by(self) -> str | None:
        """The target whose answer went on."""
        return answered_by(self.attempts)

    @property
    def troubled(self) -> bool:
        """Whether the way to the answer is worth telling: something failed, or more than one call was made."""
        return len(self.attempts) > 1 or any(attempt.failed for attempt in self.attempts)

    def attempt(self, span: Span) -> Attempt | None:
        return next((a for a in self.attempts if a.span.span_id == span.span_id), None)

    def used(self, side: str) -> tuple[Used, ...]:
        """Classes of the tokens that went `in` or came `out`."""
        return tuple(used for used in self.usage if used.side == side)

    @property
    def failed(self) -> bool:
        return self.row.status == "error"


def trace_page(traces: TraceStore, query: TraceQuery, before: str | None) -> TracePage:
    rows = traces.list(query.filter, before, PAGE + 1)
    shown = tuple(rows[:PAGE])
    older = None
    if len(rows) > PAGE:
        older = "/traces?" + urlencode({"q": query.text, "before": cursor(shown[-1])})
    ever = bool(shown) or bool(traces.list(type(query.filter)(), None, 1))
    return TracePage(query, shown, failures_of(traces, shown), older, before is None, ever)


def cursor(row: TraceRow) -> str:
    return row.trace_id


def trace_view(traces: TraceStore, delivery: Delivery, trace_id: str, step_id: str | None) -> TraceView:
    """Raises NotFound when nothing is stored under this id."""
    spans, row = traces.get(trace_id), traces.row(trace_id)
    steps = waterfall(spans)
    root = steps[0].span
    known = row.app in delivery.apps()
    releases = tuple(r.number for r in delivery.releases(row.app)) if known and row.app else ()
    return TraceView(
        trace_id=trace_id,
        row=row,
        root=root,
        asked=tuple(turns(_first(spans, root, Attr.INPUT_MESSAGES))),
        said=tuple(turns(_first(spans, root, Attr.OUTPUT_MESSAGES))),
        attempts=attempts_of(spans),
        usage=usage_classes(spans),
        citations=tuple(_dicts(root.attributes.get(Attr.CITATIONS))),
        guard=tuple(_dicts(root.attributes.get(Attr.GUARD))),
        removed=tuple(str(s) for s in _list(_first(spans, root, "mainstay.grounding.removed"))),
        fallback=_text_or_none(_first(spans, root, "mainstay.grounding.fallback")),
        steps=tuple(steps),
        step=next((s for s in spans if s.span_id == step_id), None) if step_id else None,
        failure=failure_of(spans),
        duration_ms=max((s.offset_ms + s.duration_ms for s in steps), default=0.0),
        releases=releases,
    )


def _first(spans: Sequence[Span], root: Span, name: str) -> Any:
    """The root's value, else the first step's that has one: other tools write it on the model call only."""
    if name in root.attributes:
        return root.attributes[name]
    return next((s.attributes[name] for s in spans if name in s.attributes), None)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, Mapping)]


def step_kind(span: Span) -> str:
    """What a step did, for its colour in the waterfall."""
    if span.status == "error":
        return "failed"
    operation = span.attributes.get(Attr.OPERATION)
    name = span.name.lower()
    for kind, words in _KINDS.items():
        if operation in words or any(word in name for word in words):
            return kind
    return "other"


_KINDS = {
    "retrieval": ("retrieval", "retrieve", "embeddings", "search"),
    "guard": ("guard", "ground", "check"),
    "model": ("chat", "text_completion", "generate_content", "model", "llm", "provider"),
}


def short_attributes(span: Span) -> list[tuple[str, Any]]:
    return sorted((k, v) for k, v in span.attributes.items() if k not in LONG)


def long_attributes(span: Span) -> list[tuple[str, Any]]:
    return sorted((k, v) for k, v in span.attributes.items() if k in LONG)
