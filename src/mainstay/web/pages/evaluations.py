"""Is it good, and is it better than before?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import PageRoute, Parts, Reader, render
from mainstay.web.views import evaluations as view

router = APIRouter(route_class=PageRoute)


@router.get("/evaluations")
def evaluations(request: Request, visitor: Reader, parts: Parts) -> Response:
    same = Same(
        (mainstay("eval", "list"), mainstay("eval", "run", "APP", "--dataset", "NAME")), (api("evaluations"),)
    )
    return render(
        request, visitor, "evaluations.html", runs=parts.evaluations.runs(), evaluation=view, same=same
    )


@router.get("/evaluations/{run_id}")
def run_page(
    request: Request, visitor: Reader, parts: Parts, run_id: str, against: str | None = None
) -> Response:
    shown = view.run_view(parts.evaluations, run_id, against or None)
    commands = [mainstay("eval", "list")]
    if against:
        commands.append(mainstay("eval", "compare", against, run_id))
    same = Same(tuple(commands), (api("evaluations", run_id),))
    return render(request, visitor, "evaluation.html", shown=shown, evaluation=view, same=same)
