"""What can be asked, and how well does it go?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from mainstay.services import Offered, Services, local_models, offered, target_views, whose_states
from mainstay.serving import TargetView
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import PageRoute, Parts, Reader, Visitor, render, visitor_of
from mainstay.web.sse import SSE_HEADERS, event
from mainstay.web.templating import TEMPLATES
from mainstay.web.views import models as view

router = APIRouter(route_class=PageRoute)

LOOK_S: Final = 1.0
LIVE_S_MAX: Final = 120.0
"""A live page's stream ends by itself; browsers open a new one, and who was signed out is then refused."""

ADD_PROVIDER: Final = """\
# mainstay.yaml
providers:
  my-server: {kind: vllm, base_url: "http://gpu-1:8000/v1", models: [qwen3-32b]}
routes:
  fast: {policy: ordered, targets: [my-server/qwen3-32b, local/smollm2]}
"""

Words = Annotated[str, Query(max_length=500)]


@router.get("/models")
async def models(
    request: Request, visitor: Reader, parts: Parts, q: Words = "", provider: Words = ""
) -> Response:
    found, views = await offered(parts.catalog), target_views(parts)
    return await run_in_threadpool(_rendered, request, visitor, parts, found, views, (q, provider))


@router.get("/models/live")
async def live(request: Request, visitor: Reader, parts: Parts) -> Response:
    """The cells of targets as server-sent events: `{key: {cell: HTML}}` of those that changed."""
    return StreamingResponse(_changes(request, parts), media_type="text/event-stream", headers=SSE_HEADERS)


def _rendered(
    request: Request,
    visitor: Visitor,
    parts: Services,
    found: tuple[Offered, ...],
    views: tuple[TargetView, ...],
    wanted: tuple[str, str],
) -> Response:
    shown = view.models_view(found, views, local_models(parts.settings), *wanted)
    same = Same((mainstay("models", "list"),), (api("models"), api("targets")))
    return render(
        request,
        visitor,
        "models.html",
        same=same,
        view=shown,
        not_ours=whose_states(parts.role),
        cells=_cells,
        snippet=ADD_PROVIDER,
    )


async def _changes(request: Request, parts: Services) -> AsyncIterator[str]:
    end = time.monotonic() + LIVE_S_MAX
    sent: dict[str, dict[str, str]] = {}
    yield event("hello", "", retry_ms=1000)
    while time.monotonic() < end:
        now = {view.key_of(v.provider, v.model, v.credential): _cells(v) for v in target_views(parts)}
        now |= {key: _cells(None) for key in sent.keys() - now.keys()}  # forgotten: not called for an hour
        changed = {key: cells for key, cells in now.items() if sent.get(key) != cells}
        sent = now
        yield event("targets", json.dumps(changed)) if changed else ": still here\n\n"
        await asyncio.sleep(LOOK_S)
        if (await run_in_threadpool(visitor_of, request)).identity is None:
            return


def _cells(now: TargetView | None) -> dict[str, str]:
    """What of a row changes, by the name of its cell."""
    macros: Any = TEMPLATES.get_template("_target_now.html").module
    state = None if now is None else view.state_of(now)
    return {name: getattr(macros, name)(now, state) for name in ("state", "busy", "first", "whole", "calls")}
