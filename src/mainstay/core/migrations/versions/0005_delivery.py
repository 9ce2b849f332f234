"""Artifacts, releases, environments and the history of their pointers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_delivery"
down_revision = "0004_evaluate"


def upgrade() -> None:
    _versions()
    _pointers()


def _versions() -> None:
    op.create_table(
        "artifacts",
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "number", name="pk_artifacts"),
        sa.UniqueConstraint("kind", "name", "digest", name="uq_artifacts_kind_name_digest"),
    )
    op.create_index("ix_artifacts_kind_digest", "artifacts", ["kind", "digest"])
    op.create_table(
        "releases",
        sa.Column("app", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("app", "number", name="pk_releases"),
        sa.UniqueConstraint("app", "digest", name="uq_releases_app_digest"),
    )


def _pointers() -> None:
    op.create_table(
        "environments",
        sa.Column("app", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("release", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("app", "name", name="pk_environments"),
        sa.ForeignKeyConstraint(
            ["app", "release"], ["releases.app", "releases.number"], name="fk_environments_app_release"
        ),
    )
    op.create_table(
        "environment_moves",
        sa.Column("app", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("app", "name", "sequence", name="pk_environment_moves"),
        sa.ForeignKeyConstraint(
            ["app", "release"], ["releases.app", "releases.number"], name="fk_environment_moves_app_release"
        ),
    )
