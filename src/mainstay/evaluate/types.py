"""Nouns of evaluation: cases, scores, runs, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ExpectedSpan:
    """A quote that holds the answer. Matched against retrieved passages after white-space folding."""

    document: str
    quote: str


@dataclass(frozen=True, slots=True)
class Case:
    """One question. `accept`: every outer group must be met by any one of its strings. Unanswerable: no spans."""

    id: str
    question: str
    answer: str
    accept: tuple[tuple[str, ...], ...]
    spans: tuple[ExpectedSpan, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """Cases under a name; `digest` is of their canonical JSON, `number` counts the versions of the name from 1."""

    name: str
    number: int
    digest: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What an app said to a case, as scorers see it. `grounded_share` is of the model's own sentences."""

    text: str
    refused: bool
    citations: tuple[Mapping[str, Any], ...]
    passages: tuple[Mapping[str, Any], ...]
    grounded_share: float | None
    answered_by: str
    cost_nusd: int | None
    latency_ms: float
    trace_id: str
    error: str | None = None


class AppCaller(Protocol):
    """How evaluation asks an app; serving's implementation is handed in where the application is built."""

    async def __call__(self, model: str, question: str) -> Answered: ...


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over scored items; `missing` were asked for and got no score.

    `ci95`: percentile bootstrap over items (Efron 1979), or Wilson's interval where all scores are 0 or 1;
    None below 2 items.
    """

    value: float | None
    scored: int
    missing: int
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation of one target on one dataset version; `scores[case id][metric]`, None = no score."""

    id: str
    dataset: str
    dataset_digest: str
    target: str
    created_at_us: int
    scores: Mapping[str, Mapping[str, float | None]]
    answers: Mapping[str, Answered]
    means: Mapping[str, Mean] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired difference b - a per metric with its 95 % bootstrap interval over cases both scored."""

    metric: str
    a: Mean
    b: Mean
    difference: float | None
    ci95: tuple[float, float] | None
    verdict: Literal["better", "worse", "no difference shown", "not measured"]
