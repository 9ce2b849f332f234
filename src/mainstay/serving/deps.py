"""What the data plane is built from. Every part is handed in where the application is built."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from mainstay.core.clock import Clock, now_us
from mainstay.models.types import Target
from mainstay.observe import Metrics
from mainstay.observe.types import SpanSink
from mainstay.retrieval.types import RetrievalSettings, Retrieved
from mainstay.serving.cache import ExactCache
from mainstay.serving.calling import Sleep
from mainstay.serving.grounding import RailGuard, SupportScorer, VersionText
from mainstay.serving.ledger import Ledger
from mainstay.serving.rates import RateLimiter
from mainstay.serving.snapshot import SnapshotHolder

EXTRACTIVE = "local/extractive"
"""The model of last resort: it selects source sentences and can invent none."""


class Models(Protocol):
    """Names of models to targets; models' Catalog."""

    def resolve(self, name: str) -> Target:
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
    """`version_text` gives the canonical text of a document version. `sleep` waits between attempts."""

    snapshots: SnapshotHolder
    models: Models
    retriever: Retriever
    scorer: SupportScorer
    guard: RailGuard
    version_text: VersionText
    ledger: Ledger
    rates: RateLimiter
    cache: ExactCache
    sink: SpanSink
    metrics: Metrics | None = None
    clock: Clock = now_us
    sleep: Sleep = asyncio.sleep
