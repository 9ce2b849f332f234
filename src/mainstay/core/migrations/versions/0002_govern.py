"""Users, keys, sign-in links, sessions, and the audit log with its signed head."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_govern"
down_revision = "0001_core"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    _people()
    _audit()


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("password_hash", sa.String, nullable=True),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("disabled_at_us", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("token_hash", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("models", _JSON, nullable=True),
        sa.Column("groups", _JSON, nullable=False),
        sa.Column("budget_nusd", sa.BigInteger, nullable=True),
        sa.Column("budget_window", sa.String, nullable=False),
        sa.Column("requests_per_minute", sa.Integer, nullable=True),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=True),
        sa.Column("revoked_at_us", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("token_hash", name="uq_api_keys_token_hash"),
    )
    for table, spent in (("sign_in_links", "used_at_us"), ("sessions", "ended_at_us")):
        op.create_table(
            table,
            sa.Column("token_hash", sa.String, nullable=False),
            sa.Column("user_id", sa.String, nullable=False),
            sa.Column("created_at_us", sa.BigInteger, nullable=False),
            sa.Column("expires_at_us", sa.BigInteger, nullable=False),
            sa.Column(spent, sa.BigInteger, nullable=True),
            sa.PrimaryKeyConstraint("token_hash", name=f"pk_{table}"),
            sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id"),
        )


def _audit() -> None:
    op.create_table(
        "audit_log",
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_log"),
    )
    op.create_table(
        "audit_head",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("signature", sa.String, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_audit_head"),
    )
