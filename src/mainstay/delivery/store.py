"""Tables and queries of delivery.

Bodies and manifests are stored as canonical JSON text: their digest is of those bytes, and a JSON column would
not give them back as they were.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from mainstay.core.content import canonical_json
from mainstay.core.database import metadata
from mainstay.delivery.manifests import manifest_body, manifest_from_body
from mainstay.delivery.types import Artifact, ArtifactKind, Environment, Release

DELIVERY_LOCK = 7205759405
"""PostgreSQL advisory lock of whoever makes versions or moves pointers."""

MoveKind = Literal["move", "rollback"]

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.UniqueConstraint("kind", "name", "digest"),
    sa.Index("ix_artifacts_kind_digest", "kind", "digest"),
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("app", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.UniqueConstraint("app", "digest"),
)

environments = sa.Table(
    "environments",
    metadata,
    sa.Column("app", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("release", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(["app", "release"], ["releases.app", "releases.number"]),
)

environment_moves = sa.Table(
    "environment_moves",
    metadata,
    sa.Column("app", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("release", sa.Integer, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["app", "release"], ["releases.app", "releases.number"]),
)


def lock(connection: sa.Connection) -> None:
    """One writer of delivery at a time, so that numbers have no gaps. SQLite's BEGIN IMMEDIATE sees to it."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": DELIVERY_LOCK})


# --- artifacts ---------------------------------------------------------------------------------------------


def insert_artifact(connection: sa.Connection, artifact: Artifact) -> None:
    connection.execute(
        artifacts.insert().values(
            kind=artifact.kind,
            name=artifact.name,
            number=artifact.number,
            digest=artifact.digest,
            body=canonical_json(dict(artifact.body)).decode(),
            created_at_us=artifact.created_at_us,
            created_by=artifact.created_by,
        )
    )


def artifact_versions(
    connection: sa.Connection, kind: ArtifactKind, name: str | None = None
) -> tuple[Artifact, ...]:
    """Versions of a kind, or of one name, by name and newest first."""
    query = sa.select(artifacts).where(artifacts.c.kind == kind)
    query = query.order_by(artifacts.c.name, artifacts.c.number.desc())
    if name is not None:
        query = query.where(artifacts.c.name == name)
    return tuple(_artifact(row) for row in connection.execute(query))


def artifact_by_digest(connection: sa.Connection, kind: ArtifactKind, digest: str) -> Artifact | None:
    query = sa.select(artifacts).where(artifacts.c.kind == kind, artifacts.c.digest == digest).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _artifact(row)


def _artifact(row: sa.Row[Any]) -> Artifact:
    body = json.loads(row.body)
    return Artifact(row.kind, row.name, row.number, row.digest, body, row.created_at_us, row.created_by)


# --- releases ----------------------------------------------------------------------------------------------


def insert_release(connection: sa.Connection, release: Release) -> None:
    connection.execute(
        releases.insert().values(
            app=release.app,
            number=release.number,
            digest=release.digest,
            manifest=canonical_json(manifest_body(release.manifest)).decode(),
            note=release.note,
            created_at_us=release.created_at_us,
            created_by=release.created_by,
        )
    )


def release_list(connection: sa.Connection, app: str | None = None) -> tuple[Release, ...]:
    """Releases of all apps, or of one, by app and newest first."""
    query = sa.select(releases).order_by(releases.c.app, releases.c.number.desc())
    if app is not None:
        query = query.where(releases.c.app == app)
    return tuple(_release(row) for row in connection.execute(query))


def _release(row: sa.Row[Any]) -> Release:
    manifest = manifest_from_body(json.loads(row.manifest))
    return Release(row.app, row.number, row.digest, manifest, row.note, row.created_at_us, row.created_by)


# --- environments ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer. A rollback undoes the last move that was not undone."""

    kind: MoveKind
    release: int
    at_us: int
    actor: str
    reason: str


def pointers(connection: sa.Connection, app: str | None = None) -> dict[tuple[str, str], int]:
    """(app, environment) → release number."""
    query = sa.select(environments)
    if app is not None:
        query = query.where(environments.c.app == app)
    return {(row.app, row.name): row.release for row in connection.execute(query)}


def moves(connection: sa.Connection, app: str, name: str) -> list[Move]:
    """The moves of one pointer, oldest first."""
    table = environment_moves.c
    query = sa.select(table.kind, table.release, table.at_us, table.actor, table.reason)
    query = query.where(table.app == app, table.name == name).order_by(table.sequence)
    return [Move(*row) for row in connection.execute(query)]


def write_move(connection: sa.Connection, app: str, name: str, move: Move) -> None:
    """Set the pointer and write down the move."""
    here = (environments.c.app == app) & (environments.c.name == name)
    updated = connection.execute(environments.update().where(here).values(release=move.release))
    if updated.rowcount == 0:
        connection.execute(environments.insert().values(app=app, name=name, release=move.release))
    table = environment_moves.c
    last = sa.select(sa.func.max(table.sequence)).where(table.app == app, table.name == name)
    connection.execute(
        environment_moves.insert().values(
            app=app,
            name=name,
            sequence=(connection.scalar(last) or 0) + 1,
            kind=move.kind,
            release=move.release,
            at_us=move.at_us,
            actor=move.actor,
            reason=move.reason,
        )
    )


def environment(connection: sa.Connection, app: str, name: str) -> Environment | None:
    release = pointers(connection, app).get((app, name))
    if release is None:
        return None
    history = tuple((m.release, m.at_us, m.actor, m.reason) for m in reversed(moves(connection, app, name)))
    return Environment(app, name, release, history)
