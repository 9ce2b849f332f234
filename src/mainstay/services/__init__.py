"""The parts of a running Mainstay, wired once in `build_services` and handed to the ways in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainstay.core.config import Settings
from mainstay.core.database import Database

if TYPE_CHECKING:
    from mainstay.delivery import Delivery
    from mainstay.evaluate import EvalStore
    from mainstay.govern import AuditLog, KeyStore, Sessions, UserStore
    from mainstay.guard import Guard
    from mainstay.knowledge import Library
    from mainstay.models import Catalog
    from mainstay.observe import Metrics, Recorder, TraceStore
    from mainstay.retrieval import Indexes
    from mainstay.serving import Gateway


@dataclass(frozen=True)
class Services:
    """Everything a route, page or command may call. Layers stay behind their own public names."""

    settings: Settings
    database: Database
    keys: KeyStore
    users: UserStore
    sessions: Sessions
    audit: AuditLog
    recorder: Recorder
    traces: TraceStore
    metrics: Metrics
    catalog: Catalog
    library: Library
    indexes: Indexes
    guard: Guard
    evaluations: EvalStore
    delivery: Delivery
    gateway: Gateway
