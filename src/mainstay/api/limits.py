"""Limits of keys, users, teams, projects and apps, where their budgets stand, and teams and projects themselves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Governor, Parts, Reader, json_response
from mainstay.api.bodies import LIMITS_EXAMPLE, LimitsBody, answers, limits_of, shown_limits
from mainstay.core.errors import InvalidInput
from mainstay.core.jsonable import plain
from mainstay.govern import Limits, ScopeKind
from mainstay.services import Services, limits_in_use
from mainstay.serving.limits.types import BudgetState

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["limits"])

TEAM_EXAMPLE: dict[str, Any] = {"id": "team_01a20d66a1b27c3d8e4f5a6b7c8d9e0f", "name": "support"}
PROJECT_EXAMPLE: dict[str, Any] = {
    "id": "project_01a20d66d0c17e2f8b3a4c5d6e7f8091",
    "name": "web shop",
    "team_id": TEAM_EXAMPLE["id"],
}
SCOPE_EXAMPLE: dict[str, Any] = {"kind": "team", **TEAM_EXAMPLE, "limits": LIMITS_EXAMPLE}
STATE_EXAMPLE: dict[str, Any] = {
    "kind": "team",
    "scope_id": TEAM_EXAMPLE["id"],
    "scope_name": "support",
    "window": "day",
    "hard": True,
    "limit_nusd": 5_000_000_000,
    "spent_nusd": 1_100_000_000,
    "held_nusd": 40_000_000,
    "available_nusd": 3_860_000_000,
    "resets_at_us": 1_795_564_800_000_000,
}


class NewTeam(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "support"}]})
    name: str = Field(min_length=1, max_length=200)


class NewProject(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "web shop", "team": "support"}]}
    )
    name: str = Field(min_length=1, max_length=200)
    team: str | None = Field(
        default=None, description="The team whose limits its keys fall under: name or id."
    )


class ChangedProject(BaseModel):
    """What is left out stays; a null team takes the project out of its team."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "shop", "team": None}]}
    )
    name: str | None = Field(default=None, min_length=1, max_length=200)
    team: str | None = Field(default=None, description="Name or id.")


# -- limits -------------------------------------------------------------------------------------------------


@router.get("/limits", responses=answers({"limits": [SCOPE_EXAMPLE]}))
def list_limits(services: Parts, _: Reader, kind: ScopeKind | None = None) -> Response:
    """Everything in use that has limits: no revoked keys, no disabled people."""
    scopes = services.directory().scopes(services.limits.all())
    shown = [_scope(s.kind, s.id, s.name, s.limits) for s in scopes if kind in (None, s.kind)]
    return json_response({"limits": shown})


@router.get("/limits/{kind}/{name}", responses=answers(SCOPE_EXAMPLE))
def get_limits(kind: ScopeKind, name: str, services: Parts, _: Reader) -> Response:
    """The limits of one thing, by its name or id."""
    return _answer(services, kind, services.directory().find(kind, name))


@router.put("/limits/{kind}/{name}", responses=answers(SCOPE_EXAMPLE))
def set_limits(kind: ScopeKind, name: str, new: LimitsBody, services: Parts, actor: Governor) -> Response:
    """Replace the limits of one thing; gateways follow within a second."""
    scope_id = services.directory().find(kind, name)
    services.limits.set(actor, kind, scope_id, limits_of(new))
    return _answer(services, kind, scope_id)


@router.delete("/limits/{kind}/{name}", responses=answers({"kind": "team", "id": "team_…", "cleared": True}))
def clear_limits(kind: ScopeKind, name: str, services: Parts, actor: Governor) -> Response:
    """Take all limits of one thing away; `cleared` says whether it had any."""
    scope_id = services.directory().find(kind, name)
    cleared = services.limits.clear(actor, kind, scope_id)
    return json_response({"kind": kind, "id": scope_id, "cleared": cleared})


@router.get("/budgets", responses=answers({"budgets": [STATE_EXAMPLE], "problem": None}))
async def list_budgets(services: Parts, _: Reader) -> Response:
    """Where every budget stands now. `budgets` is null, and `problem` says why, while the counters cannot be read."""
    now = await limits_in_use(services)
    shown = None if now.states is None else [_state(state) for state in now.states]
    return json_response({"budgets": shown, "problem": now.problem})


# -- teams and projects -------------------------------------------------------------------------------------


@router.get("/teams", responses=answers({"teams": [TEAM_EXAMPLE]}))
def list_teams(services: Parts, _: Reader) -> Response:
    return json_response({"teams": services.teams.list()})


@router.post("/teams", status_code=201, responses=answers(TEAM_EXAMPLE, 201))
def create_team(new: NewTeam, services: Parts, actor: Governor) -> Response:
    return json_response(services.teams.create(actor, new.name), 201)


@router.patch("/teams/{team}", responses=answers(TEAM_EXAMPLE))
def rename_team(team: str, new: NewTeam, services: Parts, actor: Governor) -> Response:
    """Give a team, found by its name or id, another name; its keys and limits stay."""
    return json_response(services.teams.rename(actor, services.directory().find("team", team), new.name))


@router.delete("/teams/{team}", responses=answers({"id": TEAM_EXAMPLE["id"], "state": "deleted"}))
def delete_team(team: str, services: Parts, actor: Governor) -> Response:
    """Delete a team that no key and no project belongs to, with its limits."""
    team_id = services.directory().find("team", team)
    services.teams.delete(actor, team_id)
    return json_response({"id": team_id, "state": "deleted"})


@router.get("/projects", responses=answers({"projects": [PROJECT_EXAMPLE]}))
def list_projects(services: Parts, _: Reader) -> Response:
    return json_response({"projects": services.projects.list()})


@router.post("/projects", status_code=201, responses=answers(PROJECT_EXAMPLE, 201))
def create_project(new: NewProject, services: Parts, actor: Governor) -> Response:
    team_id = None if new.team is None else services.directory().find("team", new.team)
    return json_response(services.projects.create(actor, new.name, team_id), 201)


@router.patch("/projects/{project}", responses=answers(PROJECT_EXAMPLE))
def change_project(project: str, new: ChangedProject, services: Parts, actor: Governor) -> Response:
    """Rename a project, found by its name or id, or move it to another team."""
    directory = services.directory()
    changed = directory.projects[directory.find("project", project)]
    if not new.model_fields_set:
        raise InvalidInput("Nothing would change.", fix="Give a name, a team, or both.")
    team_id = None if new.team is None else directory.find("team", new.team)
    if new.name is not None:  # first: of the two it is what may be refused
        changed = services.projects.rename(actor, changed.id, new.name)
    if "team" in new.model_fields_set:
        changed = services.projects.move(actor, changed.id, team_id)
    return json_response(changed)


@router.delete("/projects/{project}", responses=answers({"id": PROJECT_EXAMPLE["id"], "state": "deleted"}))
def delete_project(project: str, services: Parts, actor: Governor) -> Response:
    """Delete a project that no key belongs to, with its limits."""
    project_id = services.directory().find("project", project)
    services.projects.delete(actor, project_id)
    return json_response({"id": project_id, "state": "deleted"})


def _answer(services: Services, kind: ScopeKind, scope_id: str) -> Response:
    name = services.directory().name(kind, scope_id)
    return json_response(_scope(kind, scope_id, name, services.limits.get(kind, scope_id)))


def _scope(kind: ScopeKind, scope_id: str, name: str, limits: Limits) -> dict[str, object]:
    return {"kind": kind, "id": scope_id, "name": name, "limits": shown_limits(limits)}


def _state(state: BudgetState) -> dict[str, object]:
    return {**plain(state), "available_nusd": state.available_nusd}
