"""The hand-written style sheets and scripts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.core.errors import NotFound
from mainstay.web.page import Anyone, PageRoute
from mainstay.web.templating import ASSETS

router = APIRouter(route_class=PageRoute)


@router.get("/static/{name:path}")
def static_file(request: Request, visitor: Anyone, name: str) -> Response:
    """A file whose address names its content may be kept for ever."""
    found = ASSETS.get(name)
    if found is None:
        raise NotFound(f"There is no file {name!r}.")
    data, media_type = found
    named = request.query_params.get("v") == ASSETS.version(name)
    keep = "public, max-age=31536000, immutable" if named else "no-cache"
    return Response(data, media_type=media_type, headers={"cache-control": keep})


@router.get("/favicon.ico")
def favicon(visitor: Anyone) -> Response:
    found = ASSETS.get("icon.svg")
    assert found is not None
    return Response(found[0], media_type=found[1], headers={"cache-control": "public, max-age=86400"})
