"""Users and API keys. A new key's token and a new sign-in link are shown once, in the answer to the post."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from mainstay.core.clock import US_PER_S, now_us
from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.govern import RATE_WORDS, Budget, BudgetWindow, Limits
from mainstay.govern.types import Role
from mainstay.services import Services, sign_in_link
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.limit_form import FieldMistake, dollars_typed, whole_typed
from mainstay.web.page import Governor, Mistake, PageRoute, Parts, Visitor, render, see_other

router = APIRouter(route_class=PageRoute)

DAY_US = 86_400 * US_PER_S


@router.get("/people")
def people(request: Request, visitor: Governor, parts: Parts) -> Response:
    return _page(request, visitor, parts)


@router.post("/people/users")
def create_user(
    request: Request,
    visitor: Governor,
    parts: Parts,
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    role: Annotated[Role, Form()] = "viewer",
    password: Annotated[str, Form()] = "",
) -> Response:
    given = {"email": email, "name": name, "role": role}  # not the password: it is typed again
    try:
        parts.users.create(visitor.known, email, name, role, password or None)
    except (InvalidInput, Conflict) as error:
        return _again(request, visitor, parts, Mistake("user", error, given))
    return see_other("/people?done=user-created")


@router.post("/people/users/{user_id}/role")
def set_role(
    visitor: Governor, parts: Parts, user_id: str, role: Annotated[Role, Form()] = "viewer"
) -> Response:
    parts.users.set_role(visitor.known, user_id, role)
    return see_other("/people?done=role-set")


@router.post("/people/users/{user_id}/disable")
def disable_user(visitor: Governor, parts: Parts, user_id: str) -> Response:
    parts.users.disable(visitor.known, user_id)
    return see_other("/people?done=user-disabled")


@router.post("/people/users/{user_id}/link")
def make_link(request: Request, visitor: Governor, parts: Parts, user_id: str) -> Response:
    user = parts.users.get(user_id)
    return _page(request, visitor, parts, link=sign_in_link(parts, visitor.known, user_id), link_for=user)


@router.post("/people/keys")
def create_key(
    request: Request,
    visitor: Governor,
    parts: Parts,
    name: Annotated[str, Form()] = "",
    role: Annotated[Role, Form()] = "viewer",
    models: Annotated[str, Form()] = "",
    groups: Annotated[str, Form()] = "",
    project: Annotated[str, Form()] = "",
    team: Annotated[str, Form()] = "",
    user: Annotated[str, Form()] = "",
    budget_usd: Annotated[str, Form()] = "",
    window: Annotated[BudgetWindow, Form()] = "month",
    requests_per_minute: Annotated[str, Form()] = "",
    tokens_per_minute: Annotated[str, Form()] = "",
    concurrent_requests: Annotated[str, Form()] = "",
    days: Annotated[str, Form()] = "",
) -> Response:
    given: dict[str, str] = {
        "name": name,
        "role": role,
        "models": models,
        "groups": groups,
        "project": project,
        "team": team,
        "user": user,
        "budget_usd": budget_usd,
        "window": window,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "days": days,
    }
    try:
        expires_days = whole_typed("days", days, "days until it expires")
        key, token = parts.keys.create(
            visitor.known,
            name,
            role=role,
            models=tuple(models.replace(",", " ").split()) or None,
            groups=frozenset(group.strip() for group in groups.split(",") if group.strip()),
            limits=_limits(given, window),
            user_id=user or None,
            team_id=team or None,
            project_id=project or None,
            expires_at_us=None if expires_days is None else now_us() + expires_days * DAY_US,
        )
    except FieldMistake as error:
        return _again(request, visitor, parts, Mistake("key", error, given, error.field))
    except (InvalidInput, Conflict, NotFound) as error:
        return _again(request, visitor, parts, Mistake("key", error, given))
    return _page(request, visitor, parts, new_key=key, token=token.reveal())


@router.post("/people/keys/{key_id}/assign")
def assign_key(
    visitor: Governor,
    parts: Parts,
    key_id: str,
    project: Annotated[str, Form()] = "",
    team: Annotated[str, Form()] = "",
    user: Annotated[str, Form()] = "",
) -> Response:
    parts.keys.assign(
        visitor.known, key_id, user_id=user or None, team_id=team or None, project_id=project or None
    )
    return see_other("/people?done=key-assigned")


@router.post("/people/keys/{key_id}/revoke")
def revoke_key(visitor: Governor, parts: Parts, key_id: str) -> Response:
    parts.keys.revoke(visitor.known, key_id)
    return see_other("/people?done=key-revoked")


def _limits(given: dict[str, str], window: BudgetWindow) -> Limits:
    """The form's one budget and its rates; more budgets are set on the page of budgets."""
    rates = {name: whole_typed(name, given[name], words) for name, words in RATE_WORDS.items()}
    nusd = dollars_typed("budget_usd", given["budget_usd"])
    return Limits(**rates, budgets=() if nusd is None else (Budget(nusd, window),))


def _again(request: Request, visitor: Visitor, parts: Services, mistake: Mistake) -> Response:
    return _page(request, visitor, parts, status=mistake.error.status, mistake=mistake)


def _page(
    request: Request,
    visitor: Visitor,
    parts: Services,
    *,
    status: int = 200,
    mistake: Mistake | None = None,
    **shown_once: Any,
) -> Response:
    once = {"new_key": None, "token": None, "link": None, "link_for": None} | shown_once
    same = Same(
        (mainstay("key", "create", "web shop"), mainstay("key", "list"), mainstay("user", "list")),
        (api("keys"), api("users")),
    )
    directory = parts.directory()
    keys = sorted(directory.keys.values(), key=lambda k: (k.revoked_at_us is not None, -k.created_at_us))
    return render(
        request,
        visitor,
        "people.html",
        status=status,
        keys=keys,
        users=tuple(directory.users.values()),
        directory=directory,
        mistake=mistake,
        same=same,
        **once,
    )
