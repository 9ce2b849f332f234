"""Publishing a project: sync its knowledge, build the indexes, then make versions, releases and moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainstay.delivery import Change, CorpusSource, Project, Release
from mainstay.govern import Identity
from mainstay.knowledge import ChunkSettings, FolderSource, SyncReport
from mainstay.services.container import Services

StageProgress = Callable[[str, int, int], None]
"""(stage, done, total); a stage is `sync handbook` or `index handbook`."""


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did. `releases` are the new ones."""

    corpora: tuple[SyncReport, ...]
    releases: tuple[Release, ...]
    changes: tuple[Change, ...]


def publish(
    services: Services,
    actor: Identity,
    project: Project,
    *,
    note: str = "",
    promote: bool = False,
    progress: StageProgress | None = None,
) -> Published:
    """Safe to repeat and to cut off anywhere: what is done is found done, and no release sees half a corpus."""
    show = progress or (lambda stage, done, total: None)
    reports = tuple(_sync(services, actor, name, source, show) for name, source in project.knowledge.items())
    snapshots = {report.corpus: report.snapshot.id for report in reports}
    applied = services.delivery.apply(actor, project, snapshots, note, promote=promote)
    services.refresher.refresh()
    return Published(reports, applied.releases, applied.changes)


def _sync(
    services: Services, actor: Identity, name: str, source: CorpusSource, show: StageProgress
) -> SyncReport:
    """One corpus: its documents, then its index, which must stand before a release may pin the snapshot."""
    files = FolderSource(source.paths, source.include, source.exclude, source.groups)
    report = services.library.sync(
        actor,
        name,
        files,
        ChunkSettings(target_chars=source.chunk_chars),
        lambda done, total, _uri: show(f"sync {name}", done, total),
    )
    services.indexes.build(report.snapshot.id, lambda done, total: show(f"index {name}", done, total))
    return report


def tend_indexes(services: Services) -> tuple[int, int]:
    """Build every index that a release needs and that is gone, and delete those that nothing needs.

    Returns (built, deleted). Indexes are derived: a lost folder, or another embedder, costs time and no release.
    The head of each corpus is kept, too: the next release will pin it.
    """
    missing = sorted(s for s in _pinned(services) if not services.indexes.ready(s))
    for snapshot in missing:
        services.indexes.build(snapshot)
    deleted = services.indexes.prune(lambda: _pinned(services) | _heads(services))
    return len(missing), deleted


def _pinned(services: Services) -> set[str]:
    return {r.corpus for r in services.delivery.runnables().values() if r.corpus is not None}


def _heads(services: Services) -> set[str]:
    return {services.library.head(corpus).id for corpus in services.library.corpora()}
