"""Teams and projects: what keys belong to, and share limits through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import Conflict, NotFound
from mainstay.core.ids import new_id
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.names import checked_name
from mainstay.govern.types import Identity, Project, Team


class TeamStore:
    """Teams of one installation, by id and by name."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._db = database
        self._clock = clock

    def create(self, actor: Identity, name: str) -> Team:
        """Raises InvalidInput for no name, Conflict for one that is taken."""
        team = Team(new_id("team"), checked_name("team", name))
        with self._db.begin() as connection:
            store.lock_audit(connection)  # two teams of one name must come one after the other
            _refuse_taken("team", store.select_teams(connection, store.teams.c.name == team.name))
            store.insert_team(connection, team)
            _record(connection, actor, "team.created", team.id, {"name": team.name}, self._clock())
        return team

    def list(self) -> tuple[Team, ...]:
        """All teams, oldest first."""
        with self._db.read() as connection:
            return store.select_teams(connection)

    def rename(self, actor: Identity, team_id: str, name: str) -> Team:
        """Raises NotFound, InvalidInput, Conflict. Keys and limits stay with it."""
        name = checked_name("team", name)
        with self._db.begin() as connection:
            store.lock_audit(connection)
            before = _the_team(connection, team_id)
            others = (store.teams.c.name == name) & (store.teams.c.id != team_id)
            _refuse_taken("team", store.select_teams(connection, others))
            store.update_named(connection, store.teams, team_id, name=name)
            facts = {"from": before.name, "to": name}
            _record(connection, actor, "team.renamed", team_id, facts, self._clock())
        return Team(team_id, name)

    def delete(self, actor: Identity, team_id: str) -> None:
        """With its limits. Raises NotFound, and Conflict while a key or project belongs to it."""
        with self._db.begin() as connection:
            store.lock_audit(connection)  # nobody makes a key for it meanwhile
            team = _the_team(connection, team_id)
            store.release_revoked_keys(connection, store.api_keys.c.team_id, team_id)
            keys = store.select_keys(connection, store.api_keys.c.team_id == team_id)
            projects = store.select_projects(connection, store.projects.c.team_id == team_id)
            used_by = [*(f"project {p.name}" for p in projects), *(f"key {k.name}" for k in keys)]
            _refuse_used("team", team.name, used_by)
            store.delete_limits(connection, "team", team_id)
            store.delete_named(connection, store.teams, team_id)
            _record(connection, actor, "team.deleted", team_id, {"name": team.name}, self._clock())


class ProjectStore:
    """Projects of one installation, by id and by name."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._db = database
        self._clock = clock

    def create(self, actor: Identity, name: str, team_id: str | None = None) -> Project:
        """Raises InvalidInput for no name, Conflict for one that is taken, NotFound for an unknown team."""
        project = Project(new_id("project"), checked_name("project", name), team_id)
        with self._db.begin() as connection:
            store.lock_audit(connection)
            if team_id is not None:
                _the_team(connection, team_id)
            taken = store.projects.c.name == project.name
            _refuse_taken("project", store.select_projects(connection, taken))
            store.insert_project(connection, project)
            facts = {"name": project.name, "team_id": team_id}
            _record(connection, actor, "project.created", project.id, facts, self._clock())
        return project

    def list(self) -> tuple[Project, ...]:
        """All projects, oldest first."""
        with self._db.read() as connection:
            return store.select_projects(connection)

    def rename(self, actor: Identity, project_id: str, name: str) -> Project:
        """Raises NotFound, InvalidInput, Conflict. Keys and limits stay with it."""
        name = checked_name("project", name)
        with self._db.begin() as connection:
            store.lock_audit(connection)
            before = _the_project(connection, project_id)
            others = (store.projects.c.name == name) & (store.projects.c.id != project_id)
            _refuse_taken("project", store.select_projects(connection, others))
            store.update_named(connection, store.projects, project_id, name=name)
            facts = {"from": before.name, "to": name}
            _record(connection, actor, "project.renamed", project_id, facts, self._clock())
        return Project(project_id, name, before.team_id)

    def move(self, actor: Identity, project_id: str, team_id: str | None) -> Project:
        """To another team, or to none. Raises NotFound."""
        with self._db.begin() as connection:
            store.lock_audit(connection)
            before = _the_project(connection, project_id)
            if team_id is not None:
                _the_team(connection, team_id)
            store.update_named(connection, store.projects, project_id, team_id=team_id)
            facts = {"from_team": before.team_id, "to_team": team_id}
            _record(connection, actor, "project.moved", project_id, facts, self._clock())
        return Project(project_id, before.name, team_id)

    def delete(self, actor: Identity, project_id: str) -> None:
        """With its limits. Raises NotFound, and Conflict while a key belongs to it."""
        with self._db.begin() as connection:
            store.lock_audit(connection)
            project = _the_project(connection, project_id)
            store.release_revoked_keys(connection, store.api_keys.c.project_id, project_id)
            keys = store.select_keys(connection, store.api_keys.c.project_id == project_id)
            _refuse_used("project", project.name, [f"key {k.name}" for k in keys])
            store.delete_limits(connection, "project", project_id)
            store.delete_named(connection, store.projects, project_id)
            _record(connection, actor, "project.deleted", project_id, {"name": project.name}, self._clock())


def require_owners(
    connection: sa.Connection, user_id: str | None, team_id: str | None, project_id: str | None
) -> None:
    """Raises NotFound unless everything a key shall belong to is there. Hold the audit lock."""
    if user_id is not None:
        found = store.select_users(connection, store.users.c.id == user_id)
        if not found:
            _absent("user", user_id)
        if found[0].disabled_at_us is not None:
            raise Conflict(f"{found[0].email} is disabled.", fix="Make the key for somebody else.")
    if team_id is not None:
        _the_team(connection, team_id)
    if project_id is not None:
        _the_project(connection, project_id)


def _the_team(connection: sa.Connection, team_id: str) -> Team:
    found = store.select_teams(connection, store.teams.c.id == team_id)
    return found[0] if found else _absent("team", team_id)


def _the_project(connection: sa.Connection, project_id: str) -> Project:
    found = store.select_projects(connection, store.projects.c.id == project_id)
    return found[0] if found else _absent("project", project_id)


def _absent(kind: str, row_id: str) -> NoReturn:
    raise NotFound(f"There is no {kind} {row_id!r}.", fix=f"List the {kind}s to see their ids.")


def _refuse_taken(kind: str, found: tuple[Team, ...] | tuple[Project, ...]) -> None:
    if found:
        raise Conflict(f"There is already a {kind} {found[0].name!r}.", fix="Choose another name.")


def _refuse_used(kind: str, name: str, used_by: list[str]) -> None:
    if used_by:
        shown = ", ".join(used_by[:3]) + (f" and {len(used_by) - 3} more" if len(used_by) > 3 else "")
        raise Conflict(
            f"The {kind} {name!r} is used by {shown}.",
            fix="Revoke or move those first.",
            used_by=len(used_by),
        )


def _record(
    connection: sa.Connection,
    actor: Identity,
    action: str,
    target: str,
    facts: Mapping[str, object],
    at_us: int,
) -> None:
    append_audit(connection, actor, action, target, facts, at_us=at_us)
    bump_change_counter(connection)
