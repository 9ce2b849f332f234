"""The one choke point of the HTTP API: who calls, may they, and how errors are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mainstay.core.clock import now_us
from mainstay.core.errors import InvalidInput, MainstayError, PermissionDenied
from mainstay.core.jsonable import dumps
from mainstay.govern import Identity, Permission, require
from mainstay.services import Services

SESSION_COOKIE = "mainstay_session"  # set by the pages' sign-in

log = logging.getLogger(__name__)


def json_response(value: Any, status: int = 200) -> Response:
    return Response(dumps(value), status_code=status, media_type="application/json")


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


class Access:
    """A dependency giving the caller's `Identity`; a route without one does not start.

    A key comes as `Authorization: Bearer`; a browser's session cookie works too, but then a change
    must carry the session's token in `x-csrf-token`, which another site cannot read.
    """

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Identity | None:
        identity = await run_in_threadpool(self._identify, request)
        require(identity, self.permission)
        return identity

    def _identify(self, request: Request) -> Identity | None:
        services = services_of(request)
        token = bearer_token(request)
        if token is not None:
            hashed = services.keys.hash_token(token)
            return services.snapshots.current.identify(hashed, now_us())[1]
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is None:
            return None
        identity = services.sessions.identity(cookie)
        changes = identity is not None and request.method not in ("GET", "HEAD")
        if changes and not services.sessions.csrf_ok(cookie, request.headers.get("x-csrf-token", "")):
            raise PermissionDenied(
                "This change came with a session cookie but without its x-csrf-token.",
                fix="Programs send an API key as `Authorization: Bearer ms-…` instead of a cookie.",
            )
        return identity


def bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


Public = Annotated[Identity | None, Depends(Access("public"))]
Reader = Annotated[Identity, Depends(Access("read"))]
Writer = Annotated[Identity, Depends(Access("write"))]
Governor = Annotated[Identity, Depends(Access("govern"))]
Parts = Annotated[Services, Depends(services_of)]


def declared_permission(route: APIRoute) -> Permission | None:
    """The permission a route asks for, wherever it stands among its dependencies."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, Access):
            return dependency.call.permission
    return None


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ApiRoute(APIRoute):
    """A route whose errors are JSON bodies, and which does not start without a declared permission."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if declared_permission(self) is None:
            raise RuntimeError(f"the route {self.path} declares no permission")

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                _refuse_null(request)
                return await handler(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                return error_response(InvalidInput(f"{where}: {first['msg']}.", fix="See /api/openapi.json."))
            except MainstayError as error:
                return error_response(error)
            except HTTPException as error:  # the framework's own: a body that it could not read
                return error_response(_unreadable(error))
            except (OverflowError, sa.exc.DataError):  # a huge number; on PostgreSQL a null character, too
                return error_response(InvalidInput("A value in this request cannot be stored."))
            except Exception as error:  # the boundary of a request: record, then give an id to find it by
                shown = MainstayError("The server failed.", fix="Its log has the reason under this error id.")
                log.exception("%s failed, %s: %s", request.url.path, shown.error_id, type(error).__name__)
                return error_response(shown)

        return answer


API_ROUTE_CLASS = ApiRoute


def _refuse_null(request: Request) -> None:
    """No name holds one, and neither database takes it everywhere."""
    if "\x00" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidInput("The address holds a null character.", fix="Leave %00 out.")


def _unreadable(error: HTTPException) -> MainstayError:
    if isinstance(error.__cause__, MainstayError):  # e.g. TooLarge
        return error.__cause__
    return InvalidInput("The request body is not JSON.", fix="Send JSON in UTF-8, not too deeply nested.")


def error_response(error: MainstayError) -> Response:
    """`{"error": {message, type, code, fix, error_id, …}}` with the error's status."""
    body = {
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "fix": error.fix,
        "error_id": error.error_id,
        **error.detail,
    }
    return json_response({"error": body}, error.status)
