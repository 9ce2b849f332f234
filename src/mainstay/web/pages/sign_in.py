"""Sign in by password or by one-time link; sign out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from mainstay.core.errors import Unauthenticated
from mainstay.core.secret import Secret
from mainstay.web.commands import Same, mainstay
from mainstay.web.page import (
    FORM_COOKIE,
    SESSION_COOKIE,
    Anyone,
    PageRoute,
    Parts,
    cookie_options,
    local_path,
    render,
    see_other,
)

router = APIRouter(route_class=PageRoute)

_SAME = Same(commands=(mainstay("user", "link", "you@example.org"),))


@router.get("/sign-in")
def sign_in_form(request: Request, visitor: Anyone, next: str = "/") -> Response:
    if visitor.identity is not None:
        return see_other(local_path(next))
    return render(request, visitor, "sign_in.html", next=local_path(next), error=None, email="", same=_SAME)


@router.post("/sign-in")
def sign_in(
    request: Request,
    visitor: Anyone,
    parts: Parts,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    try:
        user = parts.users.check_password(email, password)
    except Unauthenticated as error:
        return render(
            request,
            visitor,
            "sign_in.html",
            status=401,
            next=local_path(next),
            error=error,
            email=email,
            same=_SAME,
        )
    return _signed_in(request, parts.sessions.start(user.id), parts.settings.session_hours, local_path(next))


@router.get("/sign-in/link/{token}")
def link_form(request: Request, visitor: Anyone, token: str) -> Response:
    """Only shows a button: mail scanners and previews open links, and would use it up."""
    return render(request, visitor, "sign_in_link.html", token=token, error=None)


@router.post("/sign-in/link/{token}")
def use_link(request: Request, visitor: Anyone, parts: Parts, token: str) -> Response:
    try:
        session = parts.sessions.redeem_link(token)
    except Unauthenticated as error:
        return render(request, visitor, "sign_in_link.html", status=401, token=token, error=error)
    return _signed_in(request, session, parts.settings.session_hours, "/")


@router.post("/sign-out")
def sign_out(request: Request, visitor: Anyone, parts: Parts) -> Response:
    token = request.cookies.get(SESSION_COOKIE)
    if token:
        parts.sessions.end(token)
    response = see_other("/sign-in?done=signed-out")
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


def _signed_in(request: Request, session: Secret, hours: int, path: str) -> Response:
    response = see_other(path)
    options = cookie_options(request)
    response.set_cookie(SESSION_COOKIE, session.reveal(), max_age=hours * 3600, **options)
    response.delete_cookie(FORM_COOKIE, path="/")
    return response
