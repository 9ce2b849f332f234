"""What everything may use and has used, the forms that set limits, and the teams and projects that share them."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from mainstay.core.errors import Conflict, InvalidInput, MainstayError, NotFound
from mainstay.govern import LimitScope, ScopeKind
from mainstay.services import LimitsInUse, Services, limits_in_use
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.limit_form import FIELDS, FieldMistake, limits_typed, typed
from mainstay.web.page import Governor, Mistake, PageRoute, Parts, Reader, Visitor, render, see_other
from mainstay.web.views import budgets as view

router = APIRouter(route_class=PageRoute)

Text = Annotated[str, Form()]


@router.get("/budgets")
async def budgets(request: Request, visitor: Reader, parts: Parts, of: str = "") -> Response:
    return await _page(request, visitor, parts, of=of)


@router.post("/budgets/limits")
async def set_limits(request: Request, visitor: Governor, parts: Parts) -> Response:
    """`of` is `kind:id`; `fresh` is sent by the form for what has no limits yet."""
    form = await request.form()
    given = {name: str(form.get(name, "")) for name in ("of", "fresh", *FIELDS)}
    try:
        await run_in_threadpool(_set, visitor, parts, given)
    except FieldMistake as error:
        return await _page(request, visitor, parts, mistake=Mistake("limits", error, given, error.field))
    except (InvalidInput, Conflict, NotFound) as error:
        return await _page(request, visitor, parts, mistake=Mistake("limits", error, given))
    return see_other("/budgets?done=limits-set")


@router.post("/budgets/clear")
def clear_limits(visitor: Governor, parts: Parts, of: Text = "") -> Response:
    kind, scope_id = _scope(of)
    parts.limits.clear(visitor.known, kind, scope_id)
    return see_other("/budgets?done=limits-cleared")


@router.post("/budgets/teams")
async def create_team(request: Request, visitor: Governor, parts: Parts, name: Text = "") -> Response:
    try:
        await run_in_threadpool(parts.teams.create, visitor.known, name)
    except (InvalidInput, Conflict) as error:
        return await _page(request, visitor, parts, mistake=Mistake("team", error, {"name": name}, "name"))
    return see_other("/budgets?done=team-created#teams")


@router.post("/budgets/teams/{team_id}/rename")
def rename_team(visitor: Governor, parts: Parts, team_id: str, name: Text = "") -> Response:
    parts.teams.rename(visitor.known, team_id, name)
    return see_other("/budgets?done=renamed#teams")


@router.post("/budgets/teams/{team_id}/delete")
def delete_team(visitor: Governor, parts: Parts, team_id: str) -> Response:
    parts.teams.delete(visitor.known, team_id)
    return see_other("/budgets?done=team-deleted#teams")


@router.post("/budgets/projects")
async def create_project(
    request: Request, visitor: Governor, parts: Parts, name: Text = "", team: Text = ""
) -> Response:
    given = {"name": name, "team": team}
    try:
        await run_in_threadpool(parts.projects.create, visitor.known, name, team or None)
    except (InvalidInput, Conflict) as error:
        return await _page(request, visitor, parts, mistake=Mistake("project", error, given, "name"))
    return see_other("/budgets?done=project-created#projects")


@router.post("/budgets/projects/{project_id}/rename")
def rename_project(visitor: Governor, parts: Parts, project_id: str, name: Text = "") -> Response:
    parts.projects.rename(visitor.known, project_id, name)
    return see_other("/budgets?done=renamed#projects")


@router.post("/budgets/projects/{project_id}/move")
def move_project(visitor: Governor, parts: Parts, project_id: str, team: Text = "") -> Response:
    parts.projects.move(visitor.known, project_id, team or None)
    return see_other("/budgets?done=project-moved#projects")


@router.post("/budgets/projects/{project_id}/delete")
def delete_project(visitor: Governor, parts: Parts, project_id: str) -> Response:
    parts.projects.delete(visitor.known, project_id)
    return see_other("/budgets?done=project-deleted#projects")


def _set(visitor: Visitor, parts: Services, given: dict[str, str]) -> None:
    kind, scope_id = _scope(given["of"])
    limits = limits_typed(given)
    if given["fresh"]:
        if limits.unlimited:
            raise InvalidInput("No limit was given.", fix="Fill in at least one field.")
        if not parts.limits.get(kind, scope_id).unlimited:  # somebody was faster: their limits would be lost
            raise Conflict("It has limits by now.", fix="Choose “Change” beside them.")
    parts.limits.set(visitor.known, kind, scope_id, limits)


def _scope(of: str) -> tuple[ScopeKind, str]:
    """`team:team_…` taken apart. Raises InvalidInput."""
    named, _, scope_id = of.partition(":")
    kind = next((k for k in get_args(ScopeKind) if k == named), None)
    if kind is None or not scope_id:
        raise InvalidInput("This form does not say what is to be limited.", fix="Choose it in the list.")
    return kind, scope_id


async def _page(
    request: Request, visitor: Visitor, parts: Services, *, of: str = "", mistake: Mistake | None = None
) -> Response:
    now = await limits_in_use(parts)
    return await run_in_threadpool(_rendered, request, visitor, parts, now, of, mistake)


def _rendered(
    request: Request, visitor: Visitor, parts: Services, now: LimitsInUse, of: str, mistake: Mistake | None
) -> Response:
    changed: LimitScope | None = None
    if mistake is not None and mistake.form == "limits" and not mistake.given["fresh"]:
        of = mistake.given["of"]
    if of:
        changed = _changed(parts, of)
    directory = parts.directory()
    same = Same((mainstay("limits", "show"), mainstay("team", "list")), (api("limits"), api("budgets")))
    values: dict[str, Any] = {
        "lines": view.lines(now),
        "problem": now.problem,
        "changed": changed,
        "given": mistake.given if mistake else typed(changed.limits) if changed else {},
        "choices": view.choices(directory, parts.delivery.apps(), now.scopes),
        "teams": tuple(directory.teams.values()),
        "projects": tuple(directory.projects.values()),
        "directory": directory,
        "mistake": mistake,
    }
    status = mistake.error.status if mistake else 200
    return render(request, visitor, "budgets.html", same=same, status=status, **values)


def _changed(parts: Services, of: str) -> LimitScope | None:
    """The scope that the form changes; None when an old link names what is gone."""
    try:
        kind, scope_id = _scope(of)
        parts.directory().find(kind, scope_id)
    except MainstayError:
        return None
    name = parts.directory().name(kind, scope_id)
    return LimitScope(kind, scope_id, name, parts.limits.get(kind, scope_id))
