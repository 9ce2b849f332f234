"""Tables and queries of governance. Times are microseconds since 1970 UTC; tokens are stored as keyed hashes only."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mainstay.core.database import Json, metadata
from mainstay.govern.limits import limits_from_json, limits_to_json
from mainstay.govern.types import (
    UNLIMITED,
    ApiKey,
    LimitKey,
    Limits,
    Project,
    ScopeKind,
    Team,
    User,
)

AUDIT_LOCK = 7205759404
"""PostgreSQL advisory lock of whoever appends to the audit log."""

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("email", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("password_hash", sa.String, nullable=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("disabled_at_us", sa.BigInteger, nullable=True),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("prefix", sa.String, nullable=False),
    sa.Column("token_hash", sa.String, nullable=False, unique=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("models", Json, nullable=True),
    sa.Column("groups", Json, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=True),
    sa.Column("revoked_at_us", sa.BigInteger, nullable=True),
    sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=True),
    sa.Column("team_id", sa.String, sa.ForeignKey("teams.id"), nullable=True),
    sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=True),
)

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("team_id", sa.String, sa.ForeignKey("teams.id"), nullable=True),
)

limits = sa.Table(
    "limits",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("scope_id", sa.String, primary_key=True),
    sa.Column("body", Json, nullable=False),
)

sign_in_links = sa.Table(
    "sign_in_links",
    metadata,
    sa.Column("token_hash", sa.String, primary_key=True),
    sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    sa.Column("used_at_us", sa.BigInteger, nullable=True),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.String, primary_key=True),
    sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger, nullable=True),
)

# `detail` is canonical JSON text, not a JSON column: PostgreSQL's jsonb rewrites numbers, and the hash covers bytes.
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False),
)

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String, nullable=False),
    sa.Column("signature", sa.String, nullable=True),
)


# --- audit -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The checkpoint: how many rows there are, the last row's hash, and the signature over both."""

    sequence: int
    hash: str
    signature: str | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An audit row as stored; `detail` is JSON text."""

    sequence: int
    at_us: int
    actor: str
    action: str
    target: str
    detail: str
    previous_hash: str
    hash: str


def lock_audit(connection: sa.Connection) -> None:
    """One writer at a time until the transaction ends. SQLite's BEGIN IMMEDIATE has already seen to it."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": AUDIT_LOCK})


def freeze(connection: sa.Connection) -> None:
    """Let all statements of this transaction see one state; call it first. SQLite does so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def read_head(connection: sa.Connection) -> Head | None:
    columns = (audit_head.c.sequence, audit_head.c.hash, audit_head.c.signature)
    row = connection.execute(sa.select(*columns).where(audit_head.c.name == "audit")).one_or_none()
    return None if row is None else Head(*row)


def write_head(connection: sa.Connection, head: Head) -> None:
    values = {"sequence": head.sequence, "hash": head.hash, "signature": head.signature}
    updated = connection.execute(audit_head.update().where(audit_head.c.name == "audit").values(**values))
    if updated.rowcount == 0:
        connection.execute(audit_head.insert().values(name="audit", **values))


def insert_audit(connection: sa.Connection, row: AuditRow) -> None:
    values = {name: getattr(row, name) for name in AuditRow.__dataclass_fields__}
    connection.execute(audit_log.insert().values(**values))


def audit_page(connection: sa.Connection, before: int | None, limit: int) -> list[AuditRow]:
    """Newest first, rows with a sequence below `before`."""
    query = sa.select(audit_log).order_by(audit_log.c.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_log.c.sequence < before)
    return [AuditRow(*row) for row in connection.execute(query)]


def iterate_audit(connection: sa.Connection) -> Generator[AuditRow, None, None]:
    """Every row, oldest first, a thousand in memory at a time. Close it when stopping early."""
    query = sa.select(audit_log).order_by(audit_log.c.sequence)
    with connection.execute(query, execution_options={"yield_per": 1000}) as rows:
        for row in rows:
            yield AuditRow(*row)


# --- keys --------------------------------------------------------------------------------------------------


def insert_key(connection: sa.Connection, key: ApiKey, created_by: str) -> None:
    values = {name: getattr(key, name) for name in ApiKey.__dataclass_fields__ if name != "limits"}
    values["models"] = None if key.models is None else list(key.models)
    values["groups"] = sorted(key.groups)
    connection.execute(api_keys.insert().values(created_by=created_by, **values))
    if not key.limits.unlimited:
        write_limits(connection, "key", key.id, key.limits)


def select_keys(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> tuple[ApiKey, ...]:
    own = (limits.c.kind == "key") & (limits.c.scope_id == api_keys.c.id)
    query = sa.select(api_keys, limits.c.body).select_from(api_keys.outerjoin(limits, own))
    return tuple(_key(row) for row in connection.execute(query.where(*where).order_by(api_keys.c.id)))


def mark_key_revoked(connection: sa.Connection, key_id: str, at_us: int) -> bool:
    """False when there is no such key or it was revoked before."""
    open_key = (api_keys.c.id == key_id) & api_keys.c.revoked_at_us.is_(None)
    return connection.execute(api_keys.update().where(open_key).values(revoked_at_us=at_us)).rowcount == 1


def update_key(connection: sa.Connection, key_id: str, **values: object) -> None:
    connection.execute(api_keys.update().where(api_keys.c.id == key_id).values(**values))


def release_revoked_keys(connection: sa.Connection, owner: sa.Column[str | None], owner_id: str) -> None:
    """Revoked keys let go of a team or project, so that it can be deleted."""
    spent = (owner == owner_id) & api_keys.c.revoked_at_us.is_not(None)
    connection.execute(api_keys.update().where(spent).values({owner: None}))


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        token_hash=row.token_hash,
        role=row.role,
        models=None if row.models is None else tuple(row.models),
        groups=frozenset(row.groups),
        limits=UNLIMITED if row.body is None else limits_from_json(row.body),
        created_at_us=row.created_at_us,
        expires_at_us=row.expires_at_us,
        revoked_at_us=row.revoked_at_us,
        user_id=row.user_id,
        team_id=row.team_id,
        project_id=row.project_id,
    )


# --- limits, teams, projects -------------------------------------------------------------------------------


def write_limits(connection: sa.Connection, kind: ScopeKind, scope_id: str, given: Limits) -> None:
    row, body = (limits.c.kind == kind) & (limits.c.scope_id == scope_id), limits_to_json(given)
    if connection.execute(limits.update().where(row).values(body=body)).rowcount == 0:
        connection.execute(limits.insert().values(kind=kind, scope_id=scope_id, body=body))


def delete_limits(connection: sa.Connection, kind: ScopeKind, scope_id: str) -> bool:
    """False when there were none."""
    row = (limits.c.kind == kind) & (limits.c.scope_id == scope_id)
    return connection.execute(limits.delete().where(row)).rowcount == 1


def select_limits(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> dict[LimitKey, Limits]:
    query = sa.select(limits).where(*where).order_by(limits.c.kind, limits.c.scope_id)
    return {(row.kind, row.scope_id): limits_from_json(row.body) for row in connection.execute(query)}


def select_teams(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> tuple[Team, ...]:
    return tuple(
        Team(*row) for row in connection.execute(sa.select(teams).where(*where).order_by(teams.c.id))
    )


def select_projects(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> tuple[Project, ...]:
    query = sa.select(projects).where(*where).order_by(projects.c.id)
    return tuple(Project(*row) for row in connection.execute(query))


def insert_team(connection: sa.Connection, team: Team) -> None:
    connection.execute(teams.insert().values(id=team.id, name=team.name))


def insert_project(connection: sa.Connection, project: Project) -> None:
    values = {"id": project.id, "name": project.name, "team_id": project.team_id}
    connection.execute(projects.insert().values(**values))


def update_named(connection: sa.Connection, table: sa.Table, row_id: str, **values: object) -> None:
    """Change a team or a project."""
    connection.execute(table.update().where(table.c.id == row_id).values(**values))


def delete_named(connection: sa.Connection, table: sa.Table, row_id: str) -> None:
    """Delete a team or a project; its limits are deleted apart."""
    connection.execute(table.delete().where(table.c.id == row_id))


# --- users -------------------------------------------------------------------------------------------------

_USER = (
    users.c.id,
    users.c.email,
    users.c.name,
    users.c.role,
    users.c.created_at_us,
    users.c.disabled_at_us,
)


def insert_user(connection: sa.Connection, user: User, password_hash: str | None) -> bool:
    """False when the e-mail address is taken."""
    if connection.scalar(sa.select(users.c.id).where(users.c.email == user.email)) is not None:
        return False
    values = {name: getattr(user, name) for name in User.__dataclass_fields__}
    connection.execute(users.insert().values(password_hash=password_hash, **values))
    return True


def select_users(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> tuple[User, ...]:
    query = sa.select(*_USER).where(*where).order_by(users.c.id)
    return tuple(User(*row) for row in connection.execute(query))


def update_user(connection: sa.Connection, user_id: str, **values: object) -> None:
    connection.execute(users.update().where(users.c.id == user_id).values(**values))


def admin_exists(connection: sa.Connection) -> bool:
    admins = (users.c.role == "admin") & users.c.disabled_at_us.is_(None)
    return connection.scalar(sa.select(users.c.id).where(admins).limit(1)) is not None


def password_hash_of(connection: sa.Connection, email: str) -> tuple[User, str | None] | None:
    """The enabled user with this e-mail address and their stored hash."""
    enabled = (users.c.email == email) & users.c.disabled_at_us.is_(None)
    row = connection.execute(sa.select(*_USER, users.c.password_hash).where(enabled)).one_or_none()
    return None if row is None else (User(*row[:-1]), row[-1])


# --- sessions ----------------------------------------------------------------------------------------------


def insert_link(
    connection: sa.Connection, token_hash: str, user_id: str, at_us: int, expires_at_us: int
) -> None:
    connection.execute(
        sign_in_links.insert().values(
            token_hash=token_hash, user_id=user_id, created_at_us=at_us, expires_at_us=expires_at_us
        )
    )


def use_link(connection: sa.Connection, token_hash: str, at_us: int) -> str | None:
    """Spend a link in one statement, so that of two callers one wins. The user id; None when it opens nothing."""
    table = sign_in_links.c
    live = (table.token_hash == token_hash) & table.used_at_us.is_(None) & (table.expires_at_us > at_us)
    spent = sign_in_links.update().where(live).values(used_at_us=at_us).returning(table.user_id)
    user_id: str | None = connection.scalar(spent)
    return user_id


def insert_session(
    connection: sa.Connection, token_hash: str, user_id: str, at_us: int, expires_at_us: int
) -> None:
    connection.execute(
        sessions.insert().values(
            token_hash=token_hash, user_id=user_id, created_at_us=at_us, expires_at_us=expires_at_us
        )
    )


def session_user(connection: sa.Connection, token_hash: str, at_us: int) -> User | None:
    """The enabled user of a session that is neither ended nor expired."""
    live = (sessions.c.token_hash == token_hash) & sessions.c.ended_at_us.is_(None)
    live = live & (sessions.c.expires_at_us > at_us) & users.c.disabled_at_us.is_(None)
    row = connection.execute(sa.select(*_USER).select_from(sessions.join(users)).where(live)).one_or_none()
    return None if row is None else User(*row)


def mark_session_ended(connection: sa.Connection, token_hash: str, at_us: int) -> str | None:
    """The user id of the session that this call ended; None when there was none to end."""
    live = (sessions.c.token_hash == token_hash) & sessions.c.ended_at_us.is_(None)
    ended = sessions.update().where(live).values(ended_at_us=at_us).returning(sessions.c.user_id)
    user_id: str | None = connection.scalar(ended)
    return user_id


def end_sessions_of(connection: sa.Connection, user_id: str, at_us: int) -> None:
    theirs = (sessions.c.user_id == user_id) & sessions.c.ended_at_us.is_(None)
    connection.execute(sessions.update().where(theirs).values(ended_at_us=at_us))


def delete_stale_sessions(connection: sa.Connection, before_us: int) -> None:
    """Forget links and sessions that expired before then: nothing refers to them."""
    connection.execute(sign_in_links.delete().where(sign_in_links.c.expires_at_us < before_us))
    connection.execute(sessions.delete().where(sessions.c.expires_at_us < before_us))
