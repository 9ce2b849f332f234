"""Who changed what, when and why, and whether the log is whole."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.core.clock import now_us
from mainstay.govern.types import AuditVerdict
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import Governor, PageRoute, Parts, render

router = APIRouter(route_class=PageRoute)

PAGE = 50


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """When this process last verified the log, and what it found."""

    at_us: int
    verdict: AuditVerdict


@router.get("/audit")
def audit(
    request: Request, visitor: Governor, parts: Parts, before: int | None = None, verify: bool = False
) -> Response:
    """`verify`: read the whole log and check it, which takes the longer the longer the log is."""
    if verify:
        request.app.state.audit_check = AuditCheck(now_us(), parts.audit.verify())
    entries = parts.audit.list(before=before, limit=PAGE + 1)
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
        check=getattr(request.app.state, "audit_check", None),
        same=same,
    )
