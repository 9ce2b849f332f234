"""`mainstay team` and `mainstay project`: what keys belong to, and share limits through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from mainstay.cli.context import actor, local_stores
from mainstay.cli.limit_options import owner_id
from mainstay.cli.output import JsonFlag, emit, say, table
from mainstay.govern import LimitKey, Limits, ScopeKind, limit_texts

teams = typer.Typer(no_args_is_help=True, help="Teams that share limits: create, list, rename, delete.")
projects = typer.Typer(
    no_args_is_help=True, help="Projects that keys are made for: create, list, rename, move, delete."
)

NewName = Annotated[str, typer.Argument(help="The new name.")]
TeamName = Annotated[str, typer.Argument(help="The team's name or id.")]
ProjectName = Annotated[str, typer.Argument(help="The project's name or id.")]


@teams.command("create")
def create_team(name: NewName, json: JsonFlag = False) -> None:
    """Make a team. Limit it with `mainstay limits set team NAME`."""
    with local_stores(create=True) as stores:
        team = stores.teams.create(actor(), name)
    emit(team, json, lambda: say(f"Made the team {team.name!r}: {team.id}."))


@teams.command("list")
def list_teams(json: JsonFlag = False) -> None:
    """List teams with their limits."""
    with local_stores() as stores:
        found, limits = stores.teams.list(), stores.limits.all()
    rows = [(t.id, t.name, _limits(limits, "team", t.id)) for t in found]
    emit(
        found, json, lambda: table(["id", "name", "limits"], rows, "No teams yet: mainstay team create NAME")
    )


@teams.command("rename")
def rename_team(team: TeamName, name: NewName, json: JsonFlag = False) -> None:
    """Give a team another name; its keys and limits stay."""
    with local_stores() as stores:
        renamed = stores.teams.rename(actor(), stores.directory().find("team", team), name)
    emit(renamed, json, lambda: say(f"The team is now called {renamed.name!r}."))


@teams.command("delete")
def delete_team(team: TeamName, json: JsonFlag = False) -> None:
    """Delete a team that no key and no project belongs to, with its limits."""
    with local_stores() as stores:
        team_id = stores.directory().find("team", team)
        stores.teams.delete(actor(), team_id)
    emit({"id": team_id, "state": "deleted"}, json, lambda: say(f"Deleted the team {team!r}."))


@projects.command("create")
def create_project(
    name: NewName,
    team: Annotated[str | None, typer.Option(help="The team whose limits its keys fall under.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make a project. Limit it with `mainstay limits set project NAME`."""
    with local_stores(create=True) as stores:
        project = stores.projects.create(actor(), name, owner_id(stores.directory(), "team", team))
    emit(project, json, lambda: say(f"Made the project {project.name!r}: {project.id}."))


@projects.command("list")
def list_projects(json: JsonFlag = False) -> None:
    """List projects with their teams and limits."""
    with local_stores() as stores:
        found, limits, directory = stores.projects.list(), stores.limits.all(), stores.directory()
    rows = [
        (
            p.id,
            p.name,
            None if p.team_id is None else directory.name("team", p.team_id),
            _limits(limits, "project", p.id),
        )
        for p in found
    ]
    empty = "No projects yet: mainstay project create NAME"
    emit(found, json, lambda: table(["id", "name", "team", "limits"], rows, empty))


@projects.command("rename")
def rename_project(project: ProjectName, name: NewName, json: JsonFlag = False) -> None:
    """Give a project another name; its keys and limits stay."""
    with local_stores() as stores:
        renamed = stores.projects.rename(actor(), stores.directory().find("project", project), name)
    emit(renamed, json, lambda: say(f"The project is now called {renamed.name!r}."))


@projects.command("move")
def move_project(
    project: ProjectName,
    team: Annotated[str | None, typer.Argument(help="The team's name or id; left out: no team.")] = None,
    json: JsonFlag = False,
) -> None:
    """Put a project into a team, or into none."""
    with local_stores() as stores:
        directory = stores.directory()
        project_id, team_id = directory.find("project", project), owner_id(directory, "team", team)
        moved = stores.projects.move(actor(), project_id, team_id)
    told = "no team" if team_id is None else f"the team {directory.name('team', team_id)!r}"
    emit(moved, json, lambda: say(f"The project {moved.name!r} belongs to {told} now."))


@projects.command("delete")
def delete_project(project: ProjectName, json: JsonFlag = False) -> None:
    """Delete a project that no key belongs to, with its limits."""
    with local_stores() as stores:
        project_id = stores.directory().find("project", project)
        stores.projects.delete(actor(), project_id)
    emit({"id": project_id, "state": "deleted"}, json, lambda: say(f"Deleted the project {project!r}."))


def _limits(limits: Mapping[LimitKey, Limits], kind: ScopeKind, scope_id: str) -> str | None:
    own = limits.get((kind, scope_id))
    return None if own is None else ", ".join(limit_texts(own))
