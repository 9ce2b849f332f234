"""Builders and fixtures of the evaluation tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mainstay.core.database import Database
from mainstay.evaluate import Answered, Case, EvalStore, ExpectedSpan
from mainstay.govern.types import Identity

ACTOR = Identity("cli:ann", "Ann", "local", "admin")

ANSWERED = Answered(
    text="Within 24 hours.",
    refused=False,
    citations=(),
    passages=(),
    grounded_share=1.0,
    answered_by="local/smollm2",
    cost_nusd=2_000_000,
    latency_ms=120.0,
    trace_id="t1",
)


@pytest.fixture
def actor() -> Identity:
    return ACTOR


@pytest.fixture
def answered() -> Callable[..., Answered]:
    """answered(text="…"): an answer that differs from an ordinary one as said."""

    def build(**changes: Any) -> Answered:
        return replace(ANSWERED, **changes)

    return build


@pytest.fixture
def case() -> Callable[..., Case]:
    def build(
        id: str = "q1",
        accept: Sequence[Sequence[str]] = (("24 hours", "24 h"),),
        spans: Mapping[str, str] | None = None,
        kind: str = "single",
        answer: str = "Within 24 hours",
    ) -> Case:
        groups = tuple(tuple(group) for group in accept) if kind != "unanswerable" else ()
        quotes = tuple(ExpectedSpan(d, q) for d, q in (spans or {}).items())
        return Case(id, f"Question {id}?", answer, groups, quotes, kind)

    return build


@pytest.fixture
def store(database: Database) -> EvalStore:
    return EvalStore(database)
