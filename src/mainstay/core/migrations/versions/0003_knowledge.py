"""Documents, versions, chunks, snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_knowledge"
down_revision = "0002_govern"


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "document_versions",
        sa.Column("id", sa.String(71), nullable=False),
        sa.Column("corpus", sa.String(200), nullable=False),
        sa.Column("uri", sa.String(1200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("media_type", sa.String(200), nullable=False),
        sa.Column("source_digest", sa.String(71), nullable=False),
        sa.Column("source_bytes", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("pages", json, nullable=False),
        sa.Column("headings", json, nullable=False),
        sa.Column("labels", json, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_document_versions"),
        sa.UniqueConstraint("corpus", "uri", "number", name="uq_document_versions_corpus_uri_number"),
    )
    op.create_table(
        "parsed_sources",
        sa.Column("id", sa.String(71), nullable=False),
        sa.Column("version_id", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parsed_sources"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["document_versions.id"],
            name="fk_parsed_sources_version_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "chunks",
        sa.Column("version_id", sa.String(71), nullable=False),
        sa.Column("chunker", sa.String(71), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("id", sa.String(71), nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("page", sa.Integer, nullable=True),
        sa.Column("heading_path", json, nullable=False),
        sa.PrimaryKeyConstraint("version_id", "chunker", "ordinal", name="pk_chunks"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["document_versions.id"], name="fk_chunks_version_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_chunks_id", "chunks", ["id"])
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(71), nullable=False),
        sa.Column("corpus", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(71), nullable=False),
        sa.Column("chunker", sa.String(71), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.UniqueConstraint("corpus", "number", name="uq_snapshots_corpus_number"),
    )
    op.create_table(
        "snapshot_entries",
        sa.Column("snapshot_id", sa.String(71), nullable=False),
        sa.Column("uri", sa.String(1200), nullable=False),
        sa.Column("version_id", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "uri", name="pk_snapshot_entries"),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name="fk_snapshot_entries_snapshot_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["document_versions.id"], name="fk_snapshot_entries_version_id"
        ),
    )
    op.create_index("ix_snapshot_entries_version_id", "snapshot_entries", ["version_id"])
    op.create_table(
        "corpora",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("head_snapshot_id", sa.String(71), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_corpora"),
        sa.ForeignKeyConstraint(["head_snapshot_id"], ["snapshots.id"], name="fk_corpora_head_snapshot_id"),
    )
