"""Teams, projects, and limits at five levels; the budget and rate of each key become its row of limits.

The old columns held one budget and one rate a key. A budget of theirs was hard.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006_limits"
down_revision = "0005_delivery"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_OWNERS = (("user_id", "users"), ("team_id", "teams"), ("project_id", "projects"))
_OLD = ("budget_nusd", "budget_window", "requests_per_minute")


def upgrade() -> None:
    _create_tables()
    _move_limits()
    _change_keys()


def _create_tables() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("team_id", sa.String, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_projects_team_id"),
    )
    op.create_table(
        "limits",
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("scope_id", sa.String, nullable=False),
        sa.Column("body", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("kind", "scope_id", name="pk_limits"),
    )


def _move_limits() -> None:
    connection = op.get_bind()
    keys = sa.table("api_keys", sa.column("id"), *(sa.column(name) for name in _OLD))
    limits = sa.table("limits", sa.column("kind"), sa.column("scope_id"), sa.column("body", _JSON))
    for row in connection.execute(sa.select(keys)).all():
        body = _body(row.budget_nusd, row.budget_window, row.requests_per_minute)
        if body:
            connection.execute(limits.insert().values(kind="key", scope_id=row.id, body=body))


def _body(budget_nusd: int | None, window: str, rate: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {} if rate is None else {"requests_per_minute": rate}
    if budget_nusd is not None:
        body["budgets"] = [{"limit_nusd": budget_nusd, "window": window, "hard": True}]
    return body


def _change_keys() -> None:
    # SQLite cannot add a foreign key to a table that is there: the batch copies it, in the same transaction.
    with op.batch_alter_table("api_keys") as batch:
        for column, owner in _OWNERS:
            batch.add_column(sa.Column(column, sa.String, nullable=True))
            batch.create_foreign_key(f"fk_api_keys_{column}", owner, [column], ["id"])
        for column in _OLD:
            batch.drop_column(column)
