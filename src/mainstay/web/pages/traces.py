"""What happened here, and why this answer?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import dropwhile
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from mainstay.core.clock import now_us
from mainstay.services import Services, replay_trace
from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import PageRoute, Parts, Reader, Visitor, Writer, render, see_other, visitor_of
from mainstay.web.sse import SSE_HEADERS, event
from mainstay.web.templating import TEMPLATES
from mainstay.web.views import traces as view
from mainstay.web.views.failures import failures_of
from mainstay.web.views.names import Names
from mainstay.web.views.trace_query import COMPLETIONS, TraceQuery, parse
from mainstay.web.views.turns import turns

router = APIRouter(route_class=PageRoute)

TAIL_POLL_S = 1.0
TAIL_S_MAX = 120.0
"""A live tail ends by itself; browsers open a new one, and who was signed out is then refused."""


@router.get("/traces")
def traces(
    request: Request, visitor: Reader, parts: Parts, q: str = "", before: str | None = None
) -> Response:
    page = view.trace_page(parts.traces, parse(q), before)
    same = Same((mainstay("trace", "list"),), (api("traces", query="limit=50"),))
    completions = [f"app:{name}" for name in parts.delivery.apps()] + list(COMPLETIONS)
    return render(request, visitor, "traces.html", view=page, completions=completions, same=same)


@router.get("/traces/live")
async def live(request: Request, visitor: Reader, parts: Parts, q: str = "", after: str = "") -> Response:
    """New rows as server-sent events, oldest first; each carries the row's HTML."""
    return StreamingResponse(
        _tail(request, visitor, parts, parse(q), request.headers.get("last-event-id") or after),
        media_type="text/event-stream",
        headers=SSE_HEADERS,
    )


@router.get("/traces/{trace_id}")
def trace(
    request: Request, visitor: Reader, parts: Parts, trace_id: str, step: str | None = None
) -> Response:
    shown = view.trace_view(parts.traces, parts.delivery, trace_id, step)
    same = Same((mainstay("trace", "show", trace_id),), (api("traces", trace_id),))
    return render(
        request,
        visitor,
        "trace.html",
        view=shown,
        same=same,
        step_kind=view.step_kind,
        turns=turns,
        short_attributes=view.short_attributes,
        long_attributes=view.long_attributes,
    )


@router.post("/traces/{trace_id}/replay")
async def replay(visitor: Writer, parts: Parts, trace_id: str, target: Annotated[str, Form()]) -> Response:
    """Ask the recorded question again on `app@rN`; leads to the new trace, which links back."""
    result = await replay_trace(parts, visitor.known, trace_id, target)
    return see_other(f"/traces/{result.again.trace_id}")


async def _tail(
    request: Request, visitor: Visitor, parts: Services, query: TraceQuery, after: str
) -> AsyncIterator[str]:
    end = time.monotonic() + TAIL_S_MAX
    rows = await run_in_threadpool(parts.traces.list, query.filter, None, view.PAGE)
    # Seen is known by id, not by order: traces from outside carry random ids, and may arrive late.
    seen = {row.trace_id for row in dropwhile(lambda r: r.trace_id != after, rows)}
    yield event("hello", "", retry_ms=1000)
    names = Names(parts)  # those of the tail's two minutes
    while time.monotonic() < end:
        rows = await run_in_threadpool(parts.traces.list, query.filter, None, view.PAGE)
        new = [r for r in rows if r.trace_id not in seen]
        why = await run_in_threadpool(failures_of, parts.traces, new)
        for row in reversed(new):
            seen.add(row.trace_id)
            html = TEMPLATES.get_template("_trace_row.html").render(
                row=row, why=why, names=names, now_us=now_us()
            )
            yield event("row", html, id=row.trace_id)
        await asyncio.sleep(TAIL_POLL_S)
        if (await run_in_threadpool(visitor_of, request)).identity is None:
            return
        yield ": still here\n\n"
