"""Datasets by digest, evaluation runs, and the answers and scores of their cases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004_evaluate"
down_revision = "0003_knowledge"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    _datasets()
    _runs()
    _results()


def _datasets() -> None:
    op.create_table(
        "eval_datasets",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("cases", _JSON, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("name", "digest", name="pk_eval_datasets"),
        sa.UniqueConstraint("name", "number", name="uq_eval_datasets_name_number"),
    )


def _runs() -> None:
    op.create_table(
        "eval_runs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("dataset", sa.String, nullable=False),
        sa.Column("dataset_digest", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("means", _JSON, nullable=True),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("finished_at_us", sa.BigInteger, nullable=True),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_eval_runs"),
        sa.ForeignKeyConstraint(
            ["dataset", "dataset_digest"],
            ["eval_datasets.name", "eval_datasets.digest"],
            name="fk_eval_runs_dataset_dataset_digest",
        ),
    )
    # The list of runs is paged by time, newest first.
    op.create_index("ix_eval_runs_created_at_us_id", "eval_runs", ["created_at_us", "id"])


def _results() -> None:
    op.create_table(
        "eval_results",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("case_id", sa.String, nullable=False),
        sa.Column("answered", _JSON, nullable=False),
        sa.Column("scores", _JSON, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "case_id", name="pk_eval_results"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["eval_runs.id"], name="fk_eval_results_run_id", ondelete="CASCADE"
        ),
    )
