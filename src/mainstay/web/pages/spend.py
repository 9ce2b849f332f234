"""What it costs, per day, app and release."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.core.clock import now_us
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import InUse, PageRoute, Parts, Reader, render
from mainstay.web.views import spend as view
from mainstay.web.views.budgets import budgets

router = APIRouter(route_class=PageRoute)


@router.get("/spend")
def spend(
    request: Request, visitor: Reader, parts: Parts, limits: InUse, days: Literal["7", "30", "90"] = "30"
) -> Response:
    shown = view.spend(parts.traces, now_us(), int(days))
    same = Same((mainstay("trace", "list", "--json"),), (api("traces", query="limit=500"),))
    return render(
        request, visitor, "spend.html", view=shown, budgets=budgets(limits), days=int(days), same=same
    )
