"""Who changed what, when and why, and whether the log is whole."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import Governor, PageRoute, Parts, render

router = APIRouter(route_class=PageRoute)

PAGE = 50


@router.get("/audit")
def audit(request: Request, visitor: Governor, parts: Parts, before: int | None = None) -> Response:
    entries = parts.audit.list(before=before, limit=PAGE + 1)
    names = {user.id: user.name for user in parts.users.list()}
    names |= {key.id: f"key {key.name}" for key in parts.keys.list()}
    same = Same(
        (mainstay("audit", "list"), mainstay("audit", "verify")), (api("audit"), api("audit", "verify"))
    )
    return render(
        request,
        visitor,
        "audit.html",
        entries=entries[:PAGE],
        older=entries[PAGE - 1].sequence if len(entries) > PAGE else None,
        before=before,
        verdict=parts.audit.verify(),
        names=names,
        same=same,
    )
