"""What the data plane is built from. Every part is handed in where the application is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mainstay.core.clock import Clock, now_us
from mainstay.guard import Guard
from mainstay.models.types import Route
from mainstay.observe import Metrics
from mainstay.observe.types import SpanSink
from mainstay.retrieval.types import RetrievalSettings, Retrieved
from mainstay.serving.cache import ExactCache
from mainstay.serving.flight import Flights
from mainstay.serving.grounding import SupportScorer, VersionText
from mainstay.serving.limits.types import Limiter
from mainstay.serving.routing.dispatch import Dispatcher
from mainstay.serving.snapshot import SnapshotHolder

EXTRACTIVE = "local/extractive"
"""The model of last resort: it selects source sentences and can invent none."""


class Models(Protocol):
    """Names of models to routes; models' Catalog."""

    def route(self, name: str) -> Route:
        """Raises UnknownModel (404)."""
        ...


class Retriever(Protocol):
    """Searches one pinned snapshot; retrieval's Indexes. Called off the event loop."""

    def search(
        self,
        snapshot_id: str,
        query: str,
        settings: RetrievalSettings,
        groups: frozenset[str] = frozenset(),
    ) -> Retrieved: ...


@dataclass(frozen=True, slots=True)
class Deps:
    """`version_text` gives the canonical text of a document version."""

    snapshots: SnapshotHolder
    models: Models
    dispatcher: Dispatcher
    retriever: Retriever
    scorer: SupportScorer
    guard: Guard
    version_text: VersionText
    limiter: Limiter
    cache: ExactCache
    sink: SpanSink
    metrics: Metrics | None = None
    clock: Clock = now_us
    flights: Flights = field(default_factory=Flights)
