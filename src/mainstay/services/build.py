"""Wires the layers: the one place that knows every part, and hands lower layers what higher ones do for them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mainstay.core.config import Settings
from mainstay.core.content import BlobStore
from mainstay.core.database import read_change_counter
from mainstay.core.errors import Conflict
from mainstay.core.yamlfile import load_yaml
from mainstay.delivery import Delivery, Project
from mainstay.evaluate import EvalStore
from mainstay.govern import ApiKey, LimitScope, app_scope, scopes_of
from mainstay.guard import Guard, Policy
from mainstay.knowledge import Library
from mainstay.models import Catalog, EngineSettings, read_models_config
from mainstay.observe import Drain, Metrics, OtlpExporter, Recorder, Spool, TraceStore
from mainstay.retrieval import Embedder, ExtractiveSelector, GroundingScorer, Indexes, MiniLmEmbedder
from mainstay.services.container import Role, Services
from mainstay.services.gauges import Gauges, KnownNames
from mainstay.services.missing_indexes import MissingIndexes, Runnables
from mainstay.services.project_watch import FileWatch, PlainPolicy, PolicyWatch, ProjectWatch
from mainstay.services.stores import Stores, open_stores
from mainstay.serving import (
    Deps,
    Dispatcher,
    ExactCache,
    Gateway,
    Journal,
    Limiter,
    LimitsElsewhere,
    MemoryLimiter,
    Refresher,
    ResponsesService,
    ResponseStore,
    Router,
    ServingSnapshot,
    SnapshotHolder,
    build_snapshot,
)


class LazyEmbedder:
    """MiniLM, loaded on first use: most commands and pages never embed."""

    name = "local/minilm"

    def __init__(self, models_dir: Path, threads: int) -> None:
        self._models_dir = models_dir
        self._threads = threads
        self._loaded: MiniLmEmbedder | None = None

    def _load(self) -> MiniLmEmbedder:
        if self._loaded is None:
            self._loaded = MiniLmEmbedder.load(self._models_dir, threads=self._threads)
        return self._loaded

    @property
    def fingerprint(self) -> str:
        return self._load().fingerprint

    @property
    def dimension(self) -> int:
        return self._load().dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._load().embed(texts)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return self._load().count_tokens(texts)


GATEWAY_WORKER = "MAINSTAY_GATEWAY_WORKER"
"""Environment variable that tells a gateway process which of several on one port it is."""

_OUTBOXES_MAX = 64
"""How many processes of one name may share a data folder."""


def build_services(
    settings: Settings, project: Project | None = None, *, role: Role | None = None
) -> Services:
    """All parts on one data folder. A serving process (`role`) follows changes; one with a data plane journals its
    budgets, one with a control plane brings what was recorded into the trace store."""
    stores = open_stores(settings)
    database, keys = stores.database, stores.keys
    library = Library(database, BlobStore(settings.data_dir / "blobs"))
    embedder = LazyEmbedder(settings.models_dir, settings.engine_threads)
    indexes = Indexes(settings.data_dir / "indexes", library, embedder)
    catalog = _catalog(settings, project, embedder)
    delivery = Delivery(database, library)
    observe = settings.data_dir / "observe"
    spool, traces, metrics = Spool(observe / "spool"), TraceStore(observe), Metrics()
    exporter = OtlpExporter(settings.otlp_export_url) if settings.otlp_export_url else None
    recorder = Recorder(
        spool, settings.capture_content, (exporter,) if exporter else (), metrics.dropped("spool")
    )
    drain = Drain(spool, traces, metrics.dropped("store"))
    metrics.watch_spool(drain.pending_bytes)
    holder = SnapshotHolder(ServingSnapshot("empty"))
    refresher = Refresher(
        holder,
        lambda: read_change_counter(database),
        lambda: serving_snapshot(
            stores, delivery, catalog, plain.policy, read_change_counter(database), served
        ),
    )
    missing = MissingIndexes(indexes, refresher.rebuild)

    def served(wanted: Runnables) -> Runnables:
        return missing.served(wanted, holder.current.runnables) if role == "gateway" else wanted

    plain = PlainPolicy(settings.plain_policy)
    metrics.know_models(KnownNames(holder, catalog))
    guard = Guard.load()
    deps = Deps(
        snapshots=holder,
        models=catalog,
        dispatcher=Dispatcher(Router(), catalog.route),
        retriever=indexes,
        scorer=GroundingScorer.load(),
        guard=guard,
        version_text=lambda version_id: library.version(version_id).text,
        limiter=_limiter(settings, role),
        cache=ExactCache(limit_bytes=settings.cache_mb << 20),
        sink=recorder,
        metrics=metrics,
    )
    gateway = Gateway(
        deps,
        keys.hash_token,
        embedder=embedder,
        responses=ResponsesService(ResponseStore(database)),
        body_limit_bytes=settings.body_limit_mb << 20,
    )
    watches: list[FileWatch] = []
    if project is not None:
        watches.append(ProjectWatch(project.path, catalog, refresher.rebuild))
    if settings.plain_policy is not None:
        watches.append(PolicyWatch(settings.plain_policy, plain, refresher.rebuild))
    services = Services(
        **vars(stores),
        role=role,
        spool=spool,
        recorder=recorder,
        traces=traces,
        drain=drain,
        exporter=exporter,
        metrics=metrics,
        catalog=catalog,
        library=library,
        indexes=indexes,
        guard=guard,
        evaluations=EvalStore(database),
        delivery=delivery,
        deps=deps,
        gateway=gateway,
        snapshots=holder,
        refresher=refresher,
        watches=tuple(watches),
        missing_indexes=missing,
        gauges=Gauges(metrics, deps, gateway.shutdown),
    )
    if role is not None:
        refresher.refresh()
        refresher.start()
    if role in ("all", "control"):
        drain.start()
    return services


def serving_snapshot(
    stores: Stores,
    delivery: Delivery,
    catalog: Catalog,
    policy: Policy,
    counter: int,
    served: Callable[[Runnables], Runnables] = lambda runnables: runnables,
) -> ServingSnapshot:
    """What gateways serve now, with the change counter that was read before. `policy` guards plain models; `served`
    may put releases that this host can serve in others' place."""
    directory, limits = stores.directory(), stores.limits.all()

    def scopes(key: ApiKey) -> tuple[LimitScope, ...]:
        return scopes_of(key, directory.teams, directory.projects, directory.users, limits)

    runnables = served(delivery.runnables())
    apps = {runnable.release.app for runnable in runnables.values()}
    of_apps = {app: scope for app in apps if (scope := app_scope(app, limits)) is not None}
    models = (info.name for info in catalog.names())
    return build_snapshot(counter, stores.keys.active(), runnables, models, policy, scopes, of_apps)


def _limiter(settings: Settings, role: Role | None) -> Limiter:
    """In memory and journalled by the process that answers, or shared through Redis when it is configured."""
    ledger = settings.data_dir / "ledger"
    if settings.redis_url is not None and role is not None:
        return _shared_limiter(settings.redis_url.reveal(), ledger, os.environ.get(GATEWAY_WORKER, role))
    if role == "control":
        return LimitsElsewhere()
    return MemoryLimiter(None if role is None else Journal(ledger / "journal.jsonl"))


def _shared_limiter(url: str, ledger: Path, name: str) -> Limiter:
    """Its outbox has the same name whenever this process is started again, so that what waits there is told. A second
    process of that name on this folder takes the next free one."""
    from mainstay.serving.limits.redis import RedisLimiter

    for turn in itertools.count(1):
        path = ledger / (f"outbox-{name}.jsonl" if turn == 1 else f"outbox-{name}-{turn}.jsonl")
        try:
            return RedisLimiter(url, outbox_path=path)
        except Conflict:
            if turn == _OUTBOXES_MAX:
                raise
    raise AssertionError("counting has no end")


def _catalog(settings: Settings, project: Project | None, embedder: Embedder) -> Catalog:
    engine = EngineSettings(
        settings.engine_threads,
        settings.engine_slots,
        settings.engine_context,
        settings.engine_memory_mb,
        settings.engine_idle_unload_s,
    )
    config = read_models_config(None if project is None else load_yaml(project.path))
    return Catalog(config, settings.models_dir, os.environ, engine, ExtractiveSelector(embedder))


def close_services(services: Services) -> None:
    """Make everything recorded durable and readable, then let go of every part."""
    services.refresher.close()
    services.missing_indexes.close()
    services.recorder.close()
    services.spool.close()
    if services.drain.running:
        services.drain.flush()
    services.drain.close()
    if services.exporter is not None:
        services.exporter.close()
    services.traces.close()
    services.indexes.close()
    services.database.close()
