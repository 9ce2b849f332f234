"""Versions, releases and the pointers to them: plan, apply, promote, roll back, compare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound, did_you_mean
from mainstay.core.faults import fault
from mainstay.delivery import planning, store
from mainstay.delivery.planning import ArtifactStep, Desired, MoveStep, ReleaseStep
from mainstay.delivery.project import Project
from mainstay.delivery.runnables import Assembler, pinned
from mainstay.delivery.store import Move
from mainstay.delivery.types import (
    ApplyReport,
    Artifact,
    ArtifactKind,
    Change,
    Environment,
    Plan,
    Release,
    ReleaseDiff,
    RunnableRelease,
)
from mainstay.govern import Identity, append_audit
from mainstay.knowledge.library import Library
from mainstay.knowledge.types import SnapshotDiff

_ENVIRONMENT = re.compile(r"(?!r\d+$)[a-z][a-z0-9-]{0,31}")  # not `r3`: app@r3 is a release
_NOT_INGESTED = "not ingested yet"


@dataclass(frozen=True, slots=True)
class _Steps:
    artifacts: tuple[ArtifactStep, ...]
    releases: tuple[ReleaseStep, ...]
    moves: tuple[MoveStep, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        steps: tuple[ArtifactStep | ReleaseStep | MoveStep, ...] = self.artifacts + self.releases + self.moves
        return tuple(step.change for step in steps)


class Delivery:
    """Delivery of one installation. Every write is one transaction with its audit rows."""

    def __init__(self, database: Database, library: Library, clock: Clock = now_us) -> None:
        self._db = database
        self._library = library
        self._clock = clock
        self._assembler = Assembler()

    # --- plan and apply ------------------------------------------------------------------------------------

    def plan(
        self, project: Project, corpora: Mapping[str, str] | None = None, *, promote: bool = False
    ) -> Plan:
        """What `apply` would change. Without `corpora`, with each corpus as it was last ingested."""
        pinned = self._heads(project) if corpora is None else corpora
        with self._db.read() as connection:
            steps = self._steps(connection, planning.desired_state(project, pinned), promote)
        return Plan(steps.changes, {"corpora": dict(pinned)})

    def apply(
        self,
        actor: Identity,
        project: Project,
        corpora: Mapping[str, str],
        note: str = "",
        *,
        promote: bool = False,
    ) -> ApplyReport:
        """Store new versions, make releases of changed apps and move pointers; all of it or nothing.

        An app's first release goes to `production` and `dev`; later ones to `dev`, and with `promote` to
        `production` too. Applying the same again changes nothing. Raises InvalidInput for a missing snapshot.
        """
        desired = planning.desired_state(project, corpora)
        now = self._clock()
        with self._db.begin() as connection:
            store.lock(connection)
            steps = self._steps(connection, desired, promote)
            artifacts = [
                _store_artifact(connection, step, actor, now) for step in steps.artifacts if step.is_new
            ]
            releases = [
                _store_release(connection, step, actor, now, note) for step in steps.releases if step.is_new
            ]
            for move in steps.moves:
                reason = note or "apply"
                store.write_move(
                    connection,
                    move.app,
                    move.environment,
                    Move("move", move.release, now, actor.id, reason),
                )
            moved = tuple(self._environment(connection, m.app, m.environment) for m in steps.moves)
            fault("delivery.before_commit")
            # Audit rows come last: writers of all layers queue for the log.
            _audit_artifacts(connection, actor, artifacts, now)
            _audit_releases(connection, actor, releases, now)
            for move in steps.moves:
                _audit_move(connection, actor, move, "environment.moved", note or "apply", now)
            if artifacts or releases or moved:
                bump_change_counter(connection)
        return ApplyReport(tuple(releases), steps.changes, moved)

    def _steps(self, connection: sa.Connection, desired: Desired, promote: bool) -> _Steps:
        artifacts = tuple(
            planning.plan_artifact(draft, store.artifact_versions(connection, draft.kind, draft.name))
            for draft in desired.drafts
        )
        releases: list[ReleaseStep] = []
        moves: list[MoveStep] = []
        pointers = store.pointers(connection)
        for manifest in desired.manifests:
            earlier = store.release_list(connection, manifest.app)
            step = planning.plan_release(manifest, earlier)
            releases.append(step)
            moves += planning.plan_moves(step, pointers, is_first=not earlier, promote=promote)
        return _Steps(artifacts, tuple(releases), tuple(moves))

    def _heads(self, project: Project) -> dict[str, str]:
        known = set(self._library.corpora())
        used = {app.corpus for app in project.apps.values() if app.corpus is not None}
        return {
            name: self._library.head(name).id if name in known else _NOT_INGESTED for name in sorted(used)
        }

    # --- reading -------------------------------------------------------------------------------------------

    def apps(self) -> tuple[str, ...]:
        """Names of all apps that have a release."""
        with self._db.read() as connection:
            return tuple(sorted({release.app for release in store.release_list(connection)}))

    def releases(self, app: str) -> tuple[Release, ...]:
        """Newest first. Raises NotFound for an unknown app."""
        with self._db.read() as connection:
            return _releases(connection, app)

    def release(self, app: str, number: int) -> Release:
        """Raises NotFound."""
        return _pick(self.releases(app), app, number)

    def environments(self, app: str) -> tuple[Environment, ...]:
        """By name. Raises NotFound for an unknown app."""
        with self._db.read() as connection:
            _releases(connection, app)
            names = sorted(name for _, name in store.pointers(connection, app))
            return tuple(self._environment(connection, app, name) for name in names)

    def artifact(self, kind: ArtifactKind, name: str, number: int | None = None) -> Artifact:
        """One version, the newest unless a number is given. Raises NotFound."""
        with self._db.read() as connection:
            versions = store.artifact_versions(connection, kind, name)
        for version in versions:
            if number is None or version.number == number:
                return version
        which = name if number is None else f"{name} v{number}"
        raise NotFound(
            f"There is no {kind} {which}.", fix=did_you_mean(name, {a.name for a in self.artifacts(kind)})
        )

    def artifacts(self, kind: ArtifactKind) -> tuple[Artifact, ...]:
        """All versions of a kind, by name and newest first."""
        with self._db.read() as connection:
            return store.artifact_versions(connection, kind)

    def runnables(self) -> Mapping[str, RunnableRelease]:
        """What gateways serve: every release under `app@rN`, every pointer under `app@env`, production as `app`."""
        with self._db.read() as connection:
            # Pointers first: releases are only ever added, so each pointer's release is then among those read.
            pointers = store.pointers(connection)
            releases = store.release_list(connection)
            return self._assembler.assemble(connection, releases, pointers)

    # --- pointers ------------------------------------------------------------------------------------------

    def promote(self, actor: Identity, app: str, environment: str, number: int, reason: str) -> Environment:
        """Point an environment, new or old, at a release. Already there: nothing happens. Raises NotFound."""
        if not _ENVIRONMENT.fullmatch(environment):
            raise InvalidInput(
                f"{environment!r} is no name for an environment.",
                fix="Use small letters, digits and `-`, e.g. staging; r1, r2 … mean releases.",
            )
        with self._db.begin() as connection:
            store.lock(connection)
            _pick(_releases(connection, app), app, number)
            before = store.pointers(connection, app).get((app, environment))
            if before != number:
                self._move(connection, actor, MoveStep(app, environment, before, number), "move", reason)
            return self._environment(connection, app, environment)

    def rollback(self, actor: Identity, app: str, environment: str, reason: str) -> Environment:
        """Back to the release before; once more, and it is the one before that. Raises Conflict at the first."""
        with self._db.begin() as connection:
            store.lock(connection)
            before = self._environment(connection, app, environment).release
            target = _release_before(store.moves(connection, app, environment))
            if target is None:
                raise Conflict(
                    f"{app}@{environment} has no earlier release than r{before}.",
                    fix="Promote the release you want.",
                )
            self._move(connection, actor, MoveStep(app, environment, before, target), "rollback", reason)
            return self._environment(connection, app, environment)

    def _move(
        self, connection: sa.Connection, actor: Identity, step: MoveStep, kind: store.MoveKind, reason: str
    ) -> None:
        now = self._clock()
        move = Move(kind, step.release, now, actor.id, reason)
        store.write_move(connection, step.app, step.environment, move)
        fault("delivery.before_commit")
        action = "environment.moved" if kind == "move" else "environment.rolled_back"
        _audit_move(connection, actor, step, action, reason, now)
        bump_change_counter(connection)

    def _environment(self, connection: sa.Connection, app: str, name: str) -> Environment:
        found = store.environment(connection, app, name)
        if found is None:
            names = {environment for _, environment in store.pointers(connection, app)}
            raise NotFound(f"App {app} has no environment {name!r}.", fix=did_you_mean(name, names))
        return replace(found, previous=_release_before(store.moves(connection, app, name)))

    # --- comparing -----------------------------------------------------------------------------------------

    def diff(self, app: str, a: int, b: int) -> ReleaseDiff:
        """What differs from release `a` to release `b`. Raises NotFound."""
        with self._db.read() as connection:
            releases = _releases(connection, app)
            old, new = _pick(releases, app, a).manifest, _pick(releases, app, b).manifest
            parts = planning.changed_parts(old, new)
            kinds: tuple[ArtifactKind, ...] = ("prompt", "model", "policy")
            changes = [
                _pin_change(connection, kind, old.pins[kind], new.pins[kind])
                for kind in kinds
                if kind in parts
            ]
        for name in ("retrieval", "generation"):
            if name in parts:
                summary = planning.settings_diff(getattr(old, name), getattr(new, name))
                changes.append(Change("settings", name, "update", summary))
        corpus = None
        if "corpus" in parts:
            change, corpus = self._corpus_change(old.pins.get("corpus"), new.pins.get("corpus"))
            changes.append(change)
        return ReleaseDiff(app, a, b, tuple(changes), corpus)

    def _corpus_change(self, old: str | None, new: str | None) -> tuple[Change, SnapshotDiff | None]:
        if old is None or new is None:
            known = self._library.snapshot(new or old or "")
            summary = f"{known.corpus} v{known.number}"
            summary = f"none → {summary}" if old is None else f"{summary} → none"
            return Change("corpus", known.corpus, "update", summary), None
        diff = self._library.diff(old, new)
        summary = f"v{diff.old.number} → v{diff.new.number}: " if diff.old.corpus == diff.new.corpus else ""
        summary += f"{len(diff.added)} added, {len(diff.removed)} removed, {len(diff.changed)} changed"
        return Change("corpus", diff.new.corpus, "update", summary), diff


def _releases(connection: sa.Connection, app: str) -> tuple[Release, ...]:
    found = store.release_list(connection, app)
    if not found:
        known = {release.app for release in store.release_list(connection)}
        raise NotFound(f"No app is called {app!r}.", fix=did_you_mean(app, known))
    return found


def _pick(releases: Iterable[Release], app: str, number: int) -> Release:
    numbers = []
    for release in releases:
        if release.number == number:
            return release
        numbers.append(release.number)
    raise NotFound(f"App {app} has no release r{number}.", fix=f"The newest is r{max(numbers)}.")


def _release_before(moves: Iterable[Move]) -> int | None:
    """Moves stack up, rollbacks take the top away: what lies under the top."""
    stack: list[int] = []
    for move in moves:
        if move.kind == "rollback":
            stack.pop()
        elif not stack or stack[-1] != move.release:
            stack.append(move.release)
    return stack[-2] if len(stack) > 1 else None


def _pin_change(connection: sa.Connection, kind: ArtifactKind, old: str, new: str) -> Change:
    left, right = pinned(connection, kind, old), pinned(connection, kind, new)
    diff = planning.body_diff(kind, left.body, right.body)
    return Change(kind, right.name, "update", planning.pin_summary(left, right), diff)


# --- writing -----------------------------------------------------------------------------------------------


def _store_artifact(connection: sa.Connection, step: ArtifactStep, actor: Identity, now: int) -> Artifact:
    draft = step.draft
    artifact = Artifact(draft.kind, draft.name, step.number, draft.digest, draft.body, now, actor.id)
    store.insert_artifact(connection, artifact)
    return artifact


def _store_release(
    connection: sa.Connection, step: ReleaseStep, actor: Identity, now: int, note: str
) -> Release:
    app = step.manifest.app
    release = Release(app, step.number, step.digest, step.manifest, note, now, actor.id)
    store.insert_release(connection, release)
    return release


def _audit_artifacts(
    connection: sa.Connection, actor: Identity, artifacts: Iterable[Artifact], now: int
) -> None:
    for artifact in artifacts:
        target = f"{artifact.kind}/{artifact.name} v{artifact.number}"
        append_audit(connection, actor, "artifact.created", target, {"digest": artifact.digest}, at_us=now)


def _audit_releases(
    connection: sa.Connection, actor: Identity, releases: Iterable[Release], now: int
) -> None:
    for release in releases:
        facts = {"digest": release.digest, "pins": dict(release.manifest.pins), "note": release.note}
        append_audit(
            connection, actor, "release.created", f"{release.app} r{release.number}", facts, at_us=now
        )


def _audit_move(
    connection: sa.Connection, actor: Identity, step: MoveStep, action: str, reason: str, now: int
) -> None:
    facts = {"from": step.before, "to": step.release, "reason": reason}
    append_audit(connection, actor, action, f"{step.app}@{step.environment}", facts, at_us=now)
