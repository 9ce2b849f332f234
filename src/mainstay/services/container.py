"""The parts of a running Mainstay, handed to the ways in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mainstay.delivery import Delivery
from mainstay.evaluate import EvalStore
from mainstay.guard import Guard
from mainstay.knowledge import Library
from mainstay.models import Catalog
from mainstay.observe import Drain, Metrics, OtlpExporter, Recorder, Spool, TraceStore
from mainstay.retrieval import Indexes
from mainstay.services.gauges import Gauges
from mainstay.services.missing_indexes import MissingIndexes
from mainstay.services.project_watch import FileWatch
from mainstay.services.stores import Stores
from mainstay.serving import Deps, Gateway, Refresher, SnapshotHolder

Role = Literal["all", "gateway", "control"]
"""What a serving process does: both planes, the data plane, or the control plane."""


@dataclass(frozen=True)
class Services(Stores):
    """Everything a route, page or command may call. Layers stay behind their own public names.

    `deps` is what the gateway answers with; in-process callers hand it to `serving.answer` and `serving.ask`.
    `role` is None in a command that serves nothing. `watches`: files that a serving process follows.
    """

    role: Role | None

    spool: Spool
    recorder: Recorder
    traces: TraceStore
    drain: Drain
    exporter: OtlpExporter | None
    metrics: Metrics
    catalog: Catalog
    library: Library
    indexes: Indexes
    guard: Guard
    evaluations: EvalStore
    delivery: Delivery
    deps: Deps
    gateway: Gateway
    snapshots: SnapshotHolder
    refresher: Refresher
    watches: tuple[FileWatch, ...]
    missing_indexes: MissingIndexes
    gauges: Gauges
