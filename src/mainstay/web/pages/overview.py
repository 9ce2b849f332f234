"""Is everything all right?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.core.clock import now_us
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import InUse, PageRoute, Parts, Reader, render
from mainstay.web.views import overview as view

router = APIRouter(route_class=PageRoute)


@router.get("/")
def overview(request: Request, visitor: Reader, parts: Parts, limits: InUse) -> Response:
    shown = view.overview(parts, now_us(), limits)
    same = Same((mainstay("release", "list"), mainstay("trace", "list")), (api("apps"), ("GET", "/metrics")))
    return render(request, visitor, "overview.html", view=shown, same=same)
