"""Traces: OTLP ingest, lists, one trace, its citations, replay."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Parts, Reader, Writer, json_response
from mainstay.api.documented import OTLP
from mainstay.observe import Attr, TraceFilter, otlp, waterfall
from mainstay.services import replay_trace

router = APIRouter(route_class=API_ROUTE_CLASS, tags=["traces"])


class Replay(BaseModel):
    model_config = ConfigDict(extra="forbid")
    on: str
    """An app release, e.g. `handbook-bot@r2`."""


@router.post("/v1/traces", responses=OTLP)
async def ingest(request: Request, services: Parts, _: Writer) -> Response:
    """OTLP/HTTP, protobuf or JSON. Answered only when the spans are in the synced spool."""
    body = await request.body()
    content_type = request.headers.get("content-type", "application/x-protobuf")
    decoded = await run_in_threadpool(
        otlp.decode, body, content_type, request.headers.get("content-encoding")
    )

    spans = list(decoded.spans)
    services.metrics.observe_ingest(accepted=len(spans), rejected=len(decoded.rejected))
    await asyncio.wrap_future(services.recorder.submit(spans))
    media_type = "application/json" if "json" in content_type else "application/x-protobuf"
    return Response(otlp.partial_success(decoded.rejected, content_type), media_type=media_type)


@router.get("/api/v1/traces")
def list_traces(
    services: Parts,
    _: Reader,
    app: str | None = None,
    release: int | None = None,
    model: str | None = None,
    status: Literal["ok", "error"] | None = None,
    text: str | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Newest first; pass the last trace id as `before` for the next page."""
    wanted = TraceFilter(app=app, release=release, model=model, status=status, text=text)
    rows = services.traces.list(wanted, before, limit)
    return json_response({"traces": rows, "next": rows[-1].trace_id if len(rows) == limit else None})


@router.get("/api/v1/traces/{trace_id}")
def get_trace(trace_id: str, services: Parts, _: Reader) -> Response:
    """All spans of a trace, in the order of its waterfall."""
    return json_response(
        {"trace_id": trace_id, "spans": [row.span for row in waterfall(services.traces.get(trace_id))]}
    )


@router.get("/v1/traces/{trace_id}/citations")
def citations(trace_id: str, services: Parts, _: Reader) -> Response:
    """Document, version, page, character span, quote and score of each citation of the answer."""
    found: list[object] = []
    for span in services.traces.get(trace_id):
        listed = span.attributes.get(Attr.CITATIONS)
        if span.parent_id is None and isinstance(listed, list):
            found = listed
    return json_response({"trace_id": trace_id, "citations": found})


@router.post("/api/v1/traces/{trace_id}/replay")
async def replay(trace_id: str, wish: Replay, services: Parts, actor: Writer) -> Response:
    """Ask the recorded question again on another release."""
    return json_response(await replay_trace(services, actor, trace_id, wish.on))
