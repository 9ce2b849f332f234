"""Keyboard shortcuts, and where to find things."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.web.page import PageRoute, Reader, render

router = APIRouter(route_class=PageRoute)


@router.get("/help")
def help_page(request: Request, visitor: Reader) -> Response:
    return render(request, visitor, "help.html")
