"""Actions that span layers: the local key, evaluation, replay, retention, what a caller may see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mainstay.core.content import write_atomically
from mainstay.core.errors import NotFound
from mainstay.evaluate import Case, Run, run_dataset
from mainstay.govern import SYSTEM, Identity, apply_retention, local_identity
from mainstay.knowledge import DocumentVersion, ListedDocument
from mainstay.models import UnknownModel
from mainstay.observe import Attr, Span
from mainstay.services.container import Services
from mainstay.services.folder import local_key_path
from mainstay.serving import Replayed, app_caller, replay
from mainstay.serving.errors import ModelNotFound

_TRACE_WAIT_S = 30.0


def local_key(services: Services) -> str:
    """A key for commands on this data folder, in a file only its owner may read; made anew when revoked."""
    path = local_key_path(services.settings)
    active = {key.token_hash for key in services.keys.active()}
    if path.exists():
        token = path.read_text().strip()
        if services.keys.hash_token(token) in active:
            return token
    _, secret = services.keys.create(local_identity(), "local commands", role="admin")
    write_atomically(path, secret.reveal().encode(), mode=0o600)
    services.refresher.refresh()
    return secret.reveal()


async def evaluate_app(
    services: Services,
    actor: Identity,
    dataset: str,
    cases: Sequence[Case],
    target: str,
    progress: Callable[[int], None],
    nonce: str = "",
) -> Run:
    """Ask every case of `target`, score and store; a run with the same nonce goes on where it was cut off.

    Raises ModelNotFound before anything is asked or stored when nothing is called `target`.
    """
    await asyncio.to_thread(services.refresher.refresh)
    snapshot = services.snapshots.current
    runnable = snapshot.resolve(target)
    pinned, digest = target, ""
    if runnable is not None:  # name the release itself: the pointer may move while the run goes on
        pinned, digest = f"{runnable.release.app}@r{runnable.release.number}", runnable.release.digest
    else:
        _require_model(services, target, (*snapshot.runnables, *snapshot.models))
    return await run_dataset(
        cases,
        pinned,
        app_caller(services.deps, actor),
        store=services.evaluations,
        actor=actor,
        dataset=dataset,
        target_digest=digest,
        nonce=nonce,
        concurrency=services.settings.engine_slots,
        progress=progress,
    )


def _require_model(services: Services, name: str, known: Sequence[str]) -> None:
    try:
        services.catalog.resolve(name)
    except UnknownModel as error:
        raise ModelNotFound(name, known, error.how_to_know) from error


async def replay_trace(services: Services, actor: Identity, trace_id: str, on: str | None) -> Replayed:
    """Ask a recorded question again. `on` may be the `r2` alone of the trace's own app.

    Raises NotFound for an unknown trace, ModelNotFound before anything is asked when nothing is called `on`.
    """
    await asyncio.to_thread(services.refresher.refresh)
    spans = list(await asyncio.to_thread(services.traces.get, trace_id))
    name = None if on is None else _with_app(on, spans)
    snapshot = services.snapshots.current
    if name is not None and snapshot.resolve(name) is None:
        _require_model(services, name, (*snapshot.runnables, *snapshot.models))
    return await replay(spans, services.deps, actor, on=name)


def _with_app(name: str, spans: Sequence[Span]) -> str:
    """`r2` as `my-bot@r2` when the trace is of the app `my-bot`; any other name as it stands."""
    apps = {str(span.attributes[Attr.APP]) for span in spans if Attr.APP in span.attributes}
    is_number = name[:1] == "r" and name[1:].isdigit()
    return f"{min(apps)}@{name}" if is_number and apps else name


def prune_traces(services: Services, actor: Identity = SYSTEM) -> int:
    """Delete day files past `trace_retention_days`; the number deleted. Audited when there were any."""
    return apply_retention(
        services.database,
        "traces",
        services.settings.trace_retention_days,
        lambda cut_ns: len(services.traces.prune(cut_ns)),
        actor=actor,
    )


def visible_documents(services: Services, caller: Identity, corpus: str) -> list[ListedDocument]:
    """Documents of the head snapshot that the caller may see. Raises NotFound for an unknown corpus."""
    head = services.library.head(corpus)
    return [d for d in services.library.listing(head.id) if may_see(caller, d)]


def visible_version(services: Services, caller: Identity, version_id: str) -> DocumentVersion:
    """One version; one that the caller may not see is not found, so that its existence stays hidden."""
    version = services.library.version(version_id)
    if not may_see(caller, version):
        raise NotFound(f"There is no document version {version_id!r}.")
    return version


def may_see(caller: Identity, version: DocumentVersion | ListedDocument) -> bool:
    """Unlabelled documents are for everyone; labelled ones for callers of one of their groups."""
    return not version.labels or bool(version.labels & caller.groups)


def wait_for_trace(services: Services, trace_id: str) -> None:
    """Until a recorded trace is readable. Raises NotFound when it is not there in time."""
    deadline = time.monotonic() + _TRACE_WAIT_S
    services.recorder.flush()
    services.drain.flush()
    while time.monotonic() < deadline:
        try:
            if services.traces.get(trace_id):
                return
        except NotFound:
            pass
        time.sleep(0.05)
    raise NotFound(f"The trace {trace_id} was not stored within {_TRACE_WAIT_S:g} seconds.")
