"""`/healthz`, `/readyz`, `/metrics`: for the machines that watch this one."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from mainstay import __version__
from mainstay.api.access import API_ROUTE_CLASS, Parts, Public, Reader, json_response
from mainstay.api.documented import METRICS
from mainstay.core.database import read_change_counter
from mainstay.services import Services

log = logging.getLogger(__name__)

router = APIRouter(route_class=API_ROUTE_CLASS, tags=["health"])

_NO_DATABASE = "The control database does not answer."
_STALE = "The control state could not be read; what was read last is served."
_BAD_FILE = "{} has changed and cannot be taken over; what was read last is served."
_NO_REDIS = "Redis does not answer: what hard budgets apply to is refused, other limits are not counted."


@router.get("/healthz")
def alive(_: Public) -> Response:
    """The process answers."""
    return json_response({"status": "ok", "version": __version__})


@router.get("/readyz")
def ready(services: Parts, _: Public) -> Response:
    """200 while requests should be sent here, with `warnings` if something is to be mended; 503 while it starts or
    ends, or cannot do its work. The log has the reasons."""
    status, reason = _not_ready(services) or ("ready", None)
    if reason is not None:
        return json_response({"status": status, "reason": reason}, 503)
    body: dict[str, Any] = {"status": status, "snapshot": services.snapshots.current.id}
    if warnings := _warnings(services):
        body["warnings"] = warnings
    return json_response(body)


def _not_ready(services: Services) -> tuple[str, str] | None:
    """Anybody may ask: what failed could name hosts and users, so no reason quotes it."""
    if services.gateway.shutdown.begun:
        return "draining", "This process is ending; requests under way may still finish."
    if not services.snapshots.loaded:
        return "starting", "No control state was read yet."
    if (
        services.role == "gateway"
    ):  # it answers from memory: without a database it serves as well as its neighbours
        return None
    try:
        read_change_counter(services.database)
    except sa.exc.SQLAlchemyError as error:
        log.warning("not ready: %s", error)
        return "unavailable", _NO_DATABASE
    return None if services.snapshots.failure is None else ("stale", _STALE)


def _warnings(services: Services) -> list[str]:
    """What people should mend although requests are answered."""
    found = [_BAD_FILE.format(watch.path.name) for watch in services.watches if watch.problem is not None]
    if services.snapshots.failure is not None:
        found.append(_STALE)
    if services.deps.limiter.figures().store_down:
        found.append(_NO_REDIS)
    return found


@router.get("/metrics", response_class=PlainTextResponse, responses=METRICS)
async def metrics(services: Parts, _: Reader) -> Response:
    """Prometheus text; scrape with a viewer key as bearer token."""
    services.gauges.look()
    text = await run_in_threadpool(services.metrics.render)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
