"""Spans and stores for the tests of observe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from observe_times import MS, NOON_NS

from mainstay.core.ids import new_span_id, new_trace_id
from mainstay.observe import Attr, Span, TraceStore

MakeSpan = Callable[..., Span]


@pytest.fixture
def make_span() -> MakeSpan:
    """A span of 100 ms at noon of a fixed day; every field can be given."""

    def make(**given: Any) -> Span:
        start_ns = given.pop("start_ns", NOON_NS)
        fields: dict[str, Any] = {
            "trace_id": new_trace_id(),
            "span_id": new_span_id(),
            "parent_id": None,
            "name": "chat support-bot",
            "start_ns": start_ns,
            "end_ns": start_ns + 100 * MS,
        }
        return Span(**(fields | given))

    return make


@pytest.fixture
def ask(make_span: MakeSpan) -> Callable[..., list[Span]]:
    """A whole trace as the gateway records it: a root and the model call below it."""

    def make(question: str = "How long is leave?", answer: str = "Thirty days.", **given: Any) -> list[Span]:
        attributes = given.pop("attributes", {})
        root = make_span(
            kind="server",
            attributes={
                Attr.APP: "support-bot",
                Attr.RELEASE: 3,
                Attr.INPUT_MESSAGES: [{"role": "user", "content": question}],
                Attr.OUTPUT_MESSAGES: [{"role": "assistant", "content": answer}],
                Attr.COST_NUSD: 1_500,
                Attr.TTFT_MS: 40.0,
                **attributes,
            },
            **given,
        )
        call = make_span(
            trace_id=root.trace_id,
            parent_id=root.span_id,
            start_ns=root.start_ns + 10 * MS,
            name="chat gpt-4o-mini",
            attributes={
                Attr.OPERATION: "chat",
                Attr.PROVIDER: "openai",
                Attr.REQUEST_MODEL: "gpt-4o-mini",
                Attr.INPUT_TOKENS: 120,
                Attr.OUTPUT_TOKENS: 30,
                Attr.COST_NUSD: 1_500,
            },
        )
        return [root, call]

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    store = TraceStore(tmp_path / "observe")
    yield store
    store.close()
