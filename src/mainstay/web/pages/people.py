"""Users and API keys. A new key's token and a new sign-in link are shown once, in the answer to the post."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from mainstay.core.clock import US_PER_S, now_us
from mainstay.core.errors import Conflict, InvalidInput
from mainstay.core.money import nusd_from_usd
from mainstay.govern.types import Role
from mainstay.services import Services, sign_in_link
from mainstay.web.commands import Same, api, mainstay
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
    budget_usd: Annotated[str, Form()] = "",
    window: Annotated[Literal["day", "month", "total"], Form()] = "month",
    requests_per_minute: Annotated[str, Form()] = "",
    days: Annotated[str, Form()] = "",
) -> Response:
    given = {
        "name": name,
        "role": role,
        "models": models,
        "groups": groups,
        "budget_usd": budget_usd,
        "window": window,
        "requests_per_minute": requests_per_minute,
        "days": days,
    }
    field = ""
    try:
        field = "budget_usd"
        budget_nusd = nusd_from_usd(budget_usd.strip().lstrip("$")) if budget_usd.strip() else None
        field = "requests_per_minute"
        rate = _whole(requests_per_minute, "Requests per minute")
        field = "days"
        expires_days = _whole(days, "Days until it expires")
        field = ""
        key, token = parts.keys.create(
            visitor.known,
            name,
            role=role,
            models=tuple(models.replace(",", " ").split()) or None,
            groups=frozenset(group.strip() for group in groups.split(",") if group.strip()),
            budget_nusd=budget_nusd,
            budget_window=window,
            requests_per_minute=rate,
            expires_at_us=None if expires_days is None else now_us() + expires_days * DAY_US,
        )
    except (InvalidInput, Conflict) as error:
        return _again(request, visitor, parts, Mistake("key", error, given, field))
    return _page(request, visitor, parts, new_key=key, token=token.reveal())


@router.post("/people/keys/{key_id}/revoke")
def revoke_key(visitor: Governor, parts: Parts, key_id: str) -> Response:
    parts.keys.revoke(visitor.known, key_id)
    return see_other("/people?done=key-revoked")


def _whole(text: str, what: str) -> int | None:
    """The whole number in a form field; None when it was left empty."""
    if not text.strip():
        return None
    if not text.strip().isdecimal():
        raise InvalidInput(f"{what} must be a whole number, not {text!r}.")
    return int(text)


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
    keys = sorted(parts.keys.list(), key=lambda k: (k.revoked_at_us is not None, -k.created_at_us))
    return render(
        request,
        visitor,
        "people.html",
        status=status,
        keys=keys,
        users=parts.users.list(),
        mistake=mistake,
        same=same,
        **once,
    )
