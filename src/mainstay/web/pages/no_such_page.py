"""An address where there is nothing."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mainstay.core.errors import NotFound
from mainstay.web.page import Anyone, PageRoute, render

router = APIRouter(route_class=PageRoute)


@router.get("/{path:path}")
def no_such_page(request: Request, visitor: Anyone, path: str) -> Response:
    """A page for people, a body for programs."""
    error = NotFound(f"There is nothing at /{path}.")
    if path.startswith(("api/", "v1/")) or "text/html" not in request.headers.get("accept", ""):
        body = {"message": error.message, "type": error.type, "code": error.code}
        return JSONResponse({"error": body}, error.status)
    return render(request, visitor, "error.html", status=error.status, error=error)
