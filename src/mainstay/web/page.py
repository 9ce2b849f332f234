"""What every page shares: who is asking, may they, the token against forged posts, headers, errors.

`page_user(permission)` is the one choke point: each route of `router()` declares it, a test walks them all.
A route that forgets it does not start (`PageRoute`).
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mainstay.core.clock import now_us
from mainstay.core.errors import InvalidInput, MainstayError, PermissionDenied, Unauthenticated
from mainstay.govern import allowed, require
from mainstay.govern.types import Identity, Permission
from mainstay.services import LimitsInUse, Services, limits_in_use
from mainstay.web.commands import Same
from mainstay.web.templating import TEMPLATES
from mainstay.web.views.names import Names

log = logging.getLogger(__name__)

SESSION_COOKIE = "mainstay_session"
FORM_COOKIE = "mainstay_form"
"""Guards forms that are posted before sign-in: the form's token must equal this cookie."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

NOTICES = {
    "promoted": "Promoted. New requests use this release within a second.",
    "rolled-back": "Rolled back. New requests use the earlier release within a second.",
    "head-set": "The corpus head was moved. Releases keep the snapshot they pin.",
    "user-created": "The user was created.",
    "role-set": "The role was changed.",
    "user-disabled": "The user was disabled and can no longer sign in.",
    "limits-set": "The limits were set. Gateways follow within a second.",
    "limits-cleared": "The limits were cleared. Gateways follow within a second.",
    "team-created": "The team was made. Set its limits above, and name it when you make keys.",
    "team-deleted": "The team was deleted with its limits.",
    "project-created": "The project was made. Set its limits above, and name it when you make keys.",
    "project-moved": "The project was moved. Its keys follow within a second.",
    "project-deleted": "The project was deleted with its limits.",
    "renamed": "The name was changed.",
    "key-assigned": "The key was assigned. Its next requests fall under other limits.",
    "key-revoked": "The key was revoked. Its next request will be refused.",
    "signed-out": "You are signed out.",
}
"""What a redirect after a post says, by the code in its address, so that an address cannot carry other text."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page: None before sign-in. `csrf` must come back with every post."""

    identity: Identity | None
    csrf: str

    def may(self, permission: Permission) -> bool:
        return self.identity is not None and allowed(self.identity.role, permission)

    @property
    def known(self) -> Identity:
        """The identity, on routes that ask for more than `public`."""
        if self.identity is None:
            raise Unauthenticated("Please sign in.")
        return self.identity


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong in a form that comes back with what was `given`. `field` is "" when it is not one field's."""

    form: str
    error: MainstayError
    given: Mapping[str, str]
    field: str = ""


class PageUser:
    """The dependency that `page_user` makes; `permission` is what its route declares."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Visitor:
        visitor = await run_in_threadpool(visitor_of, request)
        if self.permission != "public":
            require(visitor.identity, self.permission)
        if request.method not in ("GET", "HEAD"):
            await _refuse_forged(request, visitor)
        return visitor


def page_user(permission: Permission) -> Any:
    """A dependency giving the `Visitor`; raises Unauthenticated or PermissionDenied."""
    return Depends(PageUser(permission))


Anyone = Annotated[Visitor, page_user("public")]
Reader = Annotated[Visitor, page_user("read")]
Asker = Annotated[Visitor, page_user("call")]
Writer = Annotated[Visitor, page_user("write")]
Governor = Annotated[Visitor, page_user("govern")]


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Parts = Annotated[Services, Depends(services_of)]


async def _limits_in_use(parts: Parts) -> LimitsInUse:
    return await limits_in_use(parts)


InUse = Annotated[LimitsInUse, Depends(_limits_in_use)]
"""Everything with limits and where its budgets stand, read before a page that runs in a thread."""


def visitor_of(request: Request) -> Visitor:
    sessions = services_of(request).sessions
    token = request.cookies.get(SESSION_COOKIE)
    identity = sessions.identity(token) if token else None
    if token and identity is not None:
        return Visitor(identity, sessions.csrf_token(token))
    return Visitor(None, request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24))


async def _refuse_forged(request: Request, visitor: Visitor) -> None:
    """Another site can make a browser post here, but cannot read the token, nor set our cookie."""
    sent = request.headers.get("x-csrf-token")
    if sent is None:
        field = (await request.form()).get("csrf")
        sent = field if isinstance(field, str) else ""
    before_sign_in = visitor.identity is None and FORM_COOKIE not in request.cookies
    if before_sign_in or not hmac.compare_digest(sent.encode(), visitor.csrf.encode()):
        raise PermissionDenied(
            "This form is out of date or did not come from this page.",
            fix="Reload the page and send the form again.",
        )


def render(
    request: Request,
    visitor: Visitor,
    template: str,
    *,
    same: Same | None = None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """A page. `same` is how to get the same by command and by API, shown behind `</>`."""
    body = TEMPLATES.get_template(template).render(
        visitor=visitor,
        may=visitor.may,
        path=request.url.path,
        now_us=now_us(),
        base_url=base_url(request),
        notice=NOTICES.get(request.query_params.get("done", "")),
        same=same,
        **{"names": Names(services_of(request)), **values},
    )
    response = HTMLResponse(body, status_code=status)
    response.headers["cache-control"] = "no-store"
    if visitor.identity is None:
        response.set_cookie(FORM_COOKIE, visitor.csrf, **cookie_options(request))
    return response


def base_url(request: Request) -> str:
    return services_of(request).settings.public_url or str(request.base_url).rstrip("/")


def cookie_options(request: Request) -> dict[str, Any]:
    """Scripts cannot read it; other sites' forms do not carry it; over https it never leaves https."""
    secure = base_url(request).startswith("https://")
    return {"httponly": True, "samesite": "lax", "secure": secure, "path": "/"}


def see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)


def local_path(given: str | None) -> str:
    """Where to go after sign-in: a path on this host, else the start page."""
    if not given or not given.startswith("/") or given[1:2] in ("/", "\\"):
        return "/"
    parts = urlsplit(given)
    return given if not parts.scheme and not parts.netloc and given.isprintable() else "/"


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route of a page: errors become pages, every answer carries the security headers."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await _answer_or_explain(handler, request)
            for name, value in SECURITY_HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


async def _answer_or_explain(handler: Handler, request: Request) -> Response:
    try:
        return await handler(request)
    except Unauthenticated:
        if request.method != "GET":
            return see_other("/sign-in")
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return see_other("/sign-in" if wanted == "/" else f"/sign-in?next={quote(wanted, safe='')}")
    except RequestValidationError as error:
        fields = ", ".join(str(e["loc"][-1]) for e in error.errors())
        return await explain(request, InvalidInput(f"This page cannot use what it was given for {fields}."))
    except Exception as error:  # the boundary of a page
        return await explain(request, shown_error(error))


def shown_error(error: Exception) -> MainstayError:
    """An error as people may see it. What was not raised on purpose is recorded, and shown as an id to find it by."""
    if isinstance(error, MainstayError):
        return error
    shown = MainstayError("This failed.", fix="The server's log has the reason under the id below.")
    log.error("a page failed, %s", shown.error_id, exc_info=error)
    return shown


async def explain(request: Request, error: MainstayError) -> Response:
    """An error as a page: what is wrong, how to mend it, an id."""

    def page() -> Response:
        return render(request, visitor_of(request), "error.html", status=error.status, error=error)

    return await run_in_threadpool(page)
