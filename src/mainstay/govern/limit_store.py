"""Limits of keys, users, teams, projects and apps: one row a scope, each change audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import InvalidInput, NotFound
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.limits import checked, limits_to_json
from mainstay.govern.names import checked_name
from mainstay.govern.types import UNLIMITED, Identity, LimitKey, Limits, ScopeKind

SCOPE_KINDS: Final[tuple[ScopeKind, ...]] = get_args(ScopeKind)
_TABLES: Final[Mapping[str, sa.Table]] = {
    "key": store.api_keys,
    "user": store.users,
    "team": store.teams,
    "project": store.projects,
}


class LimitStore:
    """Limits of one installation. Gateways follow a change within a second."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._db = database
        self._clock = clock

    def set(self, actor: Identity, kind: ScopeKind, scope_id: str, limits: Limits) -> Limits:
        """Replace the limits of a scope; none at all clears them. Returns them as stored.

        An app's id is its name, which need not be in use yet. Raises InvalidInput for limits that make no
        sense, NotFound for a scope that is not there.
        """
        if kind not in SCOPE_KINDS:
            raise InvalidInput(f"{kind!r} cannot have limits.", fix=f"Use one of {', '.join(SCOPE_KINDS)}.")
        limits = checked(limits)
        if limits.unlimited:
            self.clear(actor, kind, scope_id)
            return UNLIMITED
        with self._db.begin() as connection:
            store.lock_audit(connection)  # of two who set the same scope first, one must find the other's row
            _require_scope(connection, kind, scope_id)
            store.write_limits(connection, kind, scope_id, limits)
            detail = {"kind": kind, **limits_to_json(limits)}
            self._record(connection, actor, "limits.set", scope_id, detail)
        return limits

    def clear(self, actor: Identity, kind: ScopeKind, scope_id: str) -> bool:
        """Nothing is limited there any more. False, and no row in the audit log, when nothing was."""
        with self._db.begin() as connection:
            had = store.delete_limits(connection, kind, scope_id)
            if had:
                self._record(connection, actor, "limits.cleared", scope_id, {"kind": kind})
        return had

    def get(self, kind: ScopeKind, scope_id: str) -> Limits:
        """Empty when nothing is limited there."""
        found = (store.limits.c.kind == kind) & (store.limits.c.scope_id == scope_id)
        with self._db.read() as connection:
            return store.select_limits(connection, found).get((kind, scope_id), UNLIMITED)

    def all(self) -> Mapping[LimitKey, Limits]:
        """By (kind, id), those of revoked keys and disabled users too."""
        with self._db.read() as connection:
            return store.select_limits(connection)

    def _record(
        self, connection: sa.Connection, actor: Identity, action: str, target: str, detail: dict[str, Any]
    ) -> None:
        append_audit(connection, actor, action, target, detail, at_us=self._clock())
        bump_change_counter(connection)


def _require_scope(connection: sa.Connection, kind: ScopeKind, scope_id: str) -> None:
    if kind == "app":
        if checked_name("app", scope_id) != scope_id:
            raise InvalidInput(f"{scope_id!r} is no app's name.", fix="Leave out the spaces around it.")
        return
    table = _TABLES[kind]
    if connection.scalar(sa.select(table.c.id).where(table.c.id == scope_id)) is None:
        raise NotFound(f"There is no {kind} {scope_id!r}.", fix=f"List the {kind}s to see their ids.")
