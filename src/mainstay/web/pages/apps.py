"""May I ship this?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.services import Services
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import Mistake, PageRoute, Parts, Reader, Visitor, Writer, render, see_other
from mainstay.web.templating import segment
from mainstay.web.views import apps as view
from mainstay.web.views import evaluations

router = APIRouter(route_class=PageRoute)


@router.get("/apps")
def apps(request: Request, visitor: Reader, parts: Parts) -> Response:
    same = Same((mainstay("release", "list"),), (api("apps"),))
    return render(request, visitor, "apps.html", apps=view.app_lines(parts.delivery), same=same)


@router.get("/apps/{app}")
def app_page(
    request: Request, visitor: Reader, parts: Parts, app: str, a: int | None = None, b: int | None = None
) -> Response:
    return _page(request, visitor, parts, app, (a, b))


def _page(
    request: Request,
    visitor: Visitor,
    parts: Services,
    app: str,
    pair: tuple[int | None, int | None] = (None, None),
    mistake: Mistake | None = None,
) -> Response:
    (a, b), shown = pair, view.app_view(parts, app)
    compared = view.compared(parts, app, a, b) if a is not None and b is not None else None
    commands = [mainstay("release", "list", app), mainstay("release", "promote", app, "r2", "--reason", "…")]
    if a is not None and b is not None:
        commands.append(mainstay("release", "diff", app, f"r{a}", f"r{b}"))
    same = Same(tuple(commands), (api("apps", app),))
    forms = {f"promote {pin.release.number}" for pin in shown.pins}
    forms |= {f"rollback {e.name}" for e in shown.environments if e.previous is not None}
    return render(
        request,
        visitor,
        "app.html",
        status=mistake.error.status if mistake else 200,
        view=shown,
        compared=compared,
        evaluation=evaluations,
        mistake=mistake,
        placed=mistake is not None and mistake.form in forms,
        same=same,
    )


@router.post("/apps/{app}/promote")
def promote(
    request: Request,
    visitor: Writer,
    parts: Parts,
    app: str,
    release: Annotated[int, Form()],
    environment: Annotated[str, Form()] = "production",
    reason: Annotated[str, Form()] = "",
) -> Response:
    try:
        parts.delivery.promote(visitor.known, app, environment, release, reason)
    except (InvalidInput, NotFound, Conflict) as error:
        mistake = Mistake(f"promote {release}", error, {"environment": environment, "reason": reason})
        return _page(request, visitor, parts, app, mistake=mistake)
    return see_other(f"/apps/{segment(app)}?done=promoted")


@router.post("/apps/{app}/rollback")
def roll_back(
    request: Request,
    visitor: Writer,
    parts: Parts,
    app: str,
    environment: Annotated[str, Form()] = "production",
    reason: Annotated[str, Form()] = "",
) -> Response:
    try:
        parts.delivery.rollback(visitor.known, app, environment, reason)
    except (InvalidInput, NotFound, Conflict) as error:
        mistake = Mistake(f"rollback {environment}", error, {"reason": reason})
        return _page(request, visitor, parts, app, mistake=mistake)
    return see_other(f"/apps/{segment(app)}?done=rolled-back")
