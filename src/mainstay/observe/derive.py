"""From spans to what lists and charts show: the facts of one span, folded into the row of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from mainstay.observe.messages import last_said, message_text
from mainstay.observe.normalize import normal_attributes
from mainstay.observe.tree import Place, tree_order
from mainstay.observe.types import Attr, AttributeValue, Span, TraceRow
from mainstay.observe.values import INT64_MAX, number, text, whole

T = TypeVar("T")

PREVIEW_CHARS = 200
SEARCH_CHARS_MAX = 200_000
"""Of one trace's text in one batch, the part that full-text search sees."""

_CHAT = frozenset(("chat", "text_completion", "generate_content"))


class SpanFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a trace's row needs to know of one span; stored with it. New fields go last, with a default."""

    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    error: bool
    chat: bool
    model: str | None
    answered_by: str | None
    provider: str | None
    app: str | None
    release: int | None
    environment: str | None
    user: str | None
    key: str | None
    conversation: str | None
    cache: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    ttft_ms: float | None
    grounded_share: float | None
    guard_hits: int | None
    response_id: str | None
    question: str
    answer: str
    entry: bool = False
    """Whether the span took a request in (kind server or consumer)."""
    own: bool = False
    """Whether the span itself names the app it answered for (`mainstay.app`), so that no service's name is needed."""


def facts_of(span: Span) -> tuple[SpanFacts, list[str]]:
    """The facts of a span and the texts in it that search should find."""
    normal = normal_attributes(span)
    get = normal.get
    questions, answers = get(Attr.INPUT_MESSAGES), get(Attr.OUTPUT_MESSAGES)
    findings = span.attributes.get(Attr.GUARD)
    facts = SpanFacts(
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        error=span.status == "error",
        chat=get(Attr.OPERATION) in _CHAT,
        model=text(get(Attr.RESPONSE_MODEL)) or text(get(Attr.REQUEST_MODEL)),
        answered_by=text(span.attributes.get(Attr.ANSWERED_BY)),
        provider=text(get(Attr.PROVIDER)),
        app=text(get(Attr.APP)),
        release=whole(get(Attr.RELEASE)),
        environment=text(get(Attr.ENVIRONMENT)),
        user=text(get(Attr.USER)),
        key=text(span.attributes.get(Attr.KEY)),
        conversation=text(get(Attr.CONVERSATION)),
        cache=text(span.attributes.get(Attr.CACHE)),
        input_tokens=whole(get(Attr.INPUT_TOKENS)),
        output_tokens=whole(get(Attr.OUTPUT_TOKENS)),
        cost_nusd=whole(get(Attr.COST_NUSD)),
        ttft_ms=number(get(Attr.TTFT_MS)),
        grounded_share=number(span.attributes.get(Attr.GROUNDED_SHARE)),
        guard_hits=len(findings) if isinstance(findings, list) else None,
        response_id=text(span.attributes.get("gen_ai.response.id")),
        question=preview(last_said(questions, "user")),
        answer=preview(last_said(answers, "assistant")),
        entry=span.kind in ("server", "consumer"),
        own=text(span.attributes.get(Attr.APP)) is not None,
    )
    return facts, _texts(normal)


def _texts(normal: Mapping[str, AttributeValue]) -> list[str]:
    messages: list[Any] = []
    for attribute in (Attr.INPUT_MESSAGES, Attr.OUTPUT_MESSAGES):
        found = normal.get(attribute)
        messages += found if isinstance(found, list) else []
    return [said for said in map(message_text, messages) if said]


def search_text(texts: Iterable[str]) -> str:
    """Each text once, bounded: a question repeated down a trace's spans is indexed once."""
    return "\n".join(dict.fromkeys(texts))[:SEARCH_CHARS_MAX]


def preview(said: str) -> str:
    """The first 200 characters, white space collapsed."""
    return " ".join(said[: 4 * PREVIEW_CHARS].split())[:PREVIEW_CHARS]


def trace_row(trace_id: str, facts: Sequence[SpanFacts]) -> TraceRow:
    """The list row of a trace, from all its spans known so far (at least one).

    The root decides what it knows; else the first span by start that knows it. The root is the span without
    a parent, else the one that took a request in from a caller whose own span we do not have. While it is
    missing, times span what is there and any failed span fails the trace.

    A request may come from inside another program's trace. App, release and environment are then those of the
    span that answered for an app of ours, and so are question and answer as far as it has them.
    """
    order = tree_order(facts)
    spans = [facts[place.at] for place in order]
    root = _root(order, facts)
    ranked = spans if root is None else [root, *(span for span in spans if span is not root)]
    ours = next((span for span in ranked if span.own), None)
    named = ranked if ours is None else [ours]
    said = ranked if ours is None else [ours, *(span for span in ranked if span is not ours)]
    start_ns = min(s.start_ns for s in spans) if root is None else root.start_ns
    end_ns = max(s.end_ns for s in spans) if root is None else root.end_ns
    return TraceRow(
        trace_id=trace_id,
        start_ns=start_ns,
        duration_ms=max(0, end_ns - start_ns) / 1_000_000,
        name=ranked[0].name,
        app=_first(named, lambda s: s.app),
        release=_first(named, lambda s: s.release),
        environment=_first(named, lambda s: s.environment),
        model=_model(ranked),
        provider=_first([s for s in ranked if s.chat] or ranked, lambda s: s.provider),
        user=_first(ranked, lambda s: s.user),
        key=_first(ranked, lambda s: s.key),
        status=_status(root, spans),
        question=_first(said, lambda s: s.question or None) or "",
        answer=_answer(said),
        input_tokens=_leaf_sum(order, facts, lambda s: s.input_tokens),
        output_tokens=_leaf_sum(order, facts, lambda s: s.output_tokens),
        cost_nusd=_leaf_cost(order, facts),
        ttft_ms=_first(ranked, lambda s: s.ttft_ms),
        grounded_share=_first(ranked, lambda s: s.grounded_share),
        cache=_first(ranked, lambda s: s.cache),
        guard_hits=_guard_hits(root, spans),
        spans=len(facts),
        conversation=_first(ranked, lambda s: s.conversation),
    )


def _root(order: Sequence[Place], facts: Sequence[SpanFacts]) -> SpanFacts | None:
    tops = [facts[place.at] for place in order if place.parent is None]
    parentless = (span for span in tops if span.parent_id is None)
    return next(parentless, None) or next((span for span in tops if span.entry), None)


def _first(spans: Sequence[SpanFacts], value: Callable[[SpanFacts], T | None]) -> T | None:
    return next((found for span in spans if (found := value(span)) is not None), None)


def _model(ranked: Sequence[SpanFacts]) -> str | None:
    """The model that wrote the answer: as the root says, else the last chat call's, else any span's."""
    return (
        _first(ranked, lambda s: s.answered_by)
        or _first([s for s in reversed(ranked[1:]) if s.chat], lambda s: s.model)
        or _first(ranked, lambda s: s.model)
    )


def _answer(ranked: Sequence[SpanFacts]) -> str:
    """The first span's answer, else the last one given by another."""
    below = sorted(ranked, key=lambda span: not span.chat)  # stable: chat calls first, late ones first
    return ranked[0].answer or next((s.answer for s in below if s.answer), "")


def _status(root: SpanFacts | None, spans: Sequence[SpanFacts]) -> Literal["ok", "error"]:
    failed = root.error if root is not None else any(span.error for span in spans)
    return "error" if failed else "ok"


def _guard_hits(root: SpanFacts | None, spans: Sequence[SpanFacts]) -> int:
    if root is not None and root.guard_hits is not None:
        return root.guard_hits
    return sum(span.guard_hits or 0 for span in spans)


def _leaf_sum(
    order: Sequence[Place], facts: Sequence[SpanFacts], value: Callable[[SpanFacts], int | None]
) -> int | None:
    """The sum over the deepest spans that know it; None when none does. Zero is a value."""
    total = _Subtotals(facts)
    for place in reversed(order):
        below = total.below.get(place.at)
        total.add(place, total.own(place, value) if below is None else below)
    return total.of_trace


def _leaf_cost(order: Sequence[Place], facts: Sequence[SpanFacts]) -> int | None:
    """As _leaf_sum, but a chat call with tokens and no price makes its ancestors' sums unknown.

    An ancestor that itself says what everything below it cost makes it known again.
    """
    total = _Subtotals(facts)
    unpriced: set[int | None] = set()
    for place in reversed(order):
        span, below = facts[place.at], total.below.get(place.at)
        if place.at in unpriced:
            below = span.cost_nusd
        elif below is None:
            below = total.own(place, lambda s: s.cost_nusd)
        if place.at in unpriced or _lacks_price(span):
            unpriced.update(() if below is not None or total.is_repeat(place) else (place.parent,))
        total.add(place, below)
    return None if None in unpriced else total.of_trace


def _lacks_price(span: SpanFacts) -> bool:
    return span.chat and span.cost_nusd is None and (span.input_tokens or span.output_tokens) is not None


class _Subtotals:
    """Sums below each span, made from the leaves up."""

    def __init__(self, facts: Sequence[SpanFacts]) -> None:
        self.below: dict[int | None, int] = {}
        self._facts = facts
        self._counted: dict[str, int] = {}

    @property
    def of_trace(self) -> int | None:
        """Never more than a store can hold: counts from outside may be absurd."""
        found = self.below.get(None)
        return None if found is None else min(found, INT64_MAX)

    def own(self, place: Place, value: Callable[[SpanFacts], int | None]) -> int | None:
        """What a leaf itself says, unless another span has already counted the same model response."""
        span = self._facts[place.at]
        found = value(span)
        if found is None or span.response_id is None:
            return found
        return found if self._counted.setdefault(span.response_id, place.at) == place.at else None

    def is_repeat(self, place: Place) -> bool:
        response_id = self._facts[place.at].response_id
        return self._counted.get(response_id or "", place.at) != place.at

    def add(self, place: Place, value: int | None) -> None:
        if value is not None:
            self.below[place.parent] = self.below.get(place.parent, 0) + value
