"""Apps, their releases and environments, and two releases side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from mainstay.core.content import short
from mainstay.core.errors import NotFound
from mainstay.delivery import Delivery
from mainstay.delivery.types import ArtifactKind, Environment, Release
from mainstay.evaluate.types import Run
from mainstay.knowledge.types import SnapshotDiff
from mainstay.services import Services

PART_KINDS: tuple[ArtifactKind, ...] = ("prompt", "model", "corpus", "policy")


@dataclass(frozen=True, slots=True)
class AppLine:
    name: str
    newest: Release | None
    environments: tuple[Environment, ...]
    releases: int


@dataclass(frozen=True, slots=True)
class ReleasePin:
    """A release on the line, with the environments that point at it now."""

    release: Release
    environments: tuple[str, ...]
    parts: tuple[str, ...]
    """What it pins, in words: `answer v2`, `local/smollm2`, `handbook #3`, `standard v1`."""


@dataclass(frozen=True, slots=True)
class AppView:
    name: str
    pins: tuple[ReleasePin, ...]
    environments: tuple[Environment, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part of two releases in words; None where a release pins none."""

    name: str
    old: str | None
    new: str | None

    @property
    def same(self) -> bool:
        return self.old == self.new


@dataclass(frozen=True, slots=True)
class Compared:
    """Two releases: every part, and (name, lines) of each text difference; a line is (kind, text)."""

    a: Release
    b: Release
    rows: tuple[PartRow, ...]
    diffs: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def app_lines(delivery: Delivery) -> tuple[AppLine, ...]:
    lines = []
    for name in delivery.apps():
        releases = delivery.releases(name)
        newest = max(releases, key=lambda r: r.number, default=None)
        lines.append(AppLine(name, newest, tuple(delivery.environments(name)), len(releases)))
    return tuple(lines)


def app_view(parts: Services, name: str) -> AppView:
    if name not in parts.delivery.apps():
        raise NotFound(
            f"There is no app {name!r}.", fix="Describe it in mainstay.yaml, then run `mainstay apply`."
        )
    environments = tuple(parts.delivery.environments(name))
    releases = sorted(parts.delivery.releases(name), key=lambda r: -r.number)
    names = _part_names(parts)
    pins = tuple(_pin(release, environments, names) for release in releases)
    return AppView(name, pins, environments, runs_of(parts, name))


def runs_of(parts: Services, app: str) -> tuple[Run, ...]:
    """Evaluation runs of the app in any release or environment, newest first."""
    return tuple(r for r in parts.evaluations.runs() if r.target.partition("@")[0] == app)


def compared(parts: Services, app: str, a: int, b: int) -> Compared:
    """Raises NotFound for an unknown app or release."""
    old, new = parts.delivery.release(app, a), parts.delivery.release(app, b)
    names = _part_names(parts)
    left, right = _parts_of(old, names), _parts_of(new, names)
    rows = tuple(PartRow(name, left.get(name), right.get(name)) for name in {**left, **right})
    diff = parts.delivery.diff(app, a, b)
    texts = [(f"{c.kind} {c.name}", _diff_lines(c.diff)) for c in diff.changes if c.diff]
    if diff.corpus is not None:
        texts.append((f"corpus {diff.corpus.new.corpus}", _corpus_lines(diff.corpus)))
    return Compared(old, new, rows, tuple(texts))


Names = Mapping[tuple[str, str], str]


def _part_names(parts: Services) -> Names:
    """(kind, digest) → how people name that version: `answer v2`, `handbook #3`, `local/smollm2`."""
    names: dict[tuple[str, str], str] = {}
    kinds: tuple[ArtifactKind, ...] = ("prompt", "model", "policy")
    for kind in kinds:
        for artifact in parts.delivery.artifacts(kind):
            model = artifact.body.get("model")
            names[kind, artifact.digest] = str(model) if model else f"{artifact.name} v{artifact.number}"
    for corpus in parts.library.corpora():
        for snapshot in parts.library.snapshots(corpus):
            names["corpus", snapshot.id] = f"{corpus} #{snapshot.number}"
    return names


def _parts_of(release: Release, names: Names) -> dict[str, str | None]:
    pins, manifest = release.manifest.pins, release.manifest
    parts: dict[str, str | None] = {kind: _named(names, kind, pins.get(kind)) for kind in PART_KINDS}
    for group, settings in (("retrieval", manifest.retrieval), ("generation", manifest.generation)):
        for field in fields(settings):
            parts[f"{group} {field.name.replace('_', ' ')}"] = str(getattr(settings, field.name))
    return parts


def _named(names: Names, kind: str, digest: str | None) -> str | None:
    return None if digest is None else names.get((kind, digest), short(digest))


def _diff_lines(text: str) -> tuple[tuple[str, str], ...]:
    """A unified diff as (kind, text); the file heads are left out, the page names both sides."""
    kinds = {"+": "add", "-": "del", "@": "at"}
    lines = [line for line in text.splitlines() if not line.startswith(("+++", "---"))]
    return tuple((kinds.get(line[:1], "as"), line) for line in lines)


def _corpus_lines(diff: SnapshotDiff) -> tuple[tuple[str, str], ...]:
    added = [("add", f"+ {uri}") for uri in diff.added]
    removed = [("del", f"- {uri}") for uri in diff.removed]
    changed = [("as", f"~ {uri}") for uri in sorted(diff.changed)]
    return (*added, *removed, *changed)


def _pin(release: Release, environments: Sequence[Environment], names: Names) -> ReleasePin:
    here = tuple(e.name for e in environments if e.release == release.number)
    parts = tuple(
        text for kind in PART_KINDS if (text := _named(names, kind, release.manifest.pins.get(kind)))
    )
    return ReleasePin(release, here, parts)
