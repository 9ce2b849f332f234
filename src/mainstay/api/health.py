"""`/healthz`, `/readyz`, `/metrics`: for the machines that watch this one."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from fastapi import APIRouter
from starlette.responses import Response

from mainstay import __version__
from mainstay.api.access import API_ROUTE_CLASS, Parts, Public, Reader, json_response
from mainstay.core.database import read_change_counter

log = logging.getLogger(__name__)

router = APIRouter(route_class=API_ROUTE_CLASS, tags=["health"])


@router.get("/healthz")
def alive(_: Public) -> Response:
    """The process answers."""
    return json_response({"status": "ok", "version": __version__})


@router.get("/readyz")
def ready(services: Parts, _: Public) -> Response:
    """200 when the database answers and the serving snapshot is fresh, else 503; the log has the reason."""
    try:
        read_change_counter(services.database)
    except sa.exc.SQLAlchemyError as error:
        log.warning("not ready: %s", error)
        return json_response(
            {"status": "unavailable", "reason": "The control database does not answer."}, 503
        )
    if services.project_watch is not None and services.project_watch.problem is not None:
        reason = "The project file has changed and cannot be read; what was read last is served."
        return json_response({"status": "stale", "reason": reason}, 503)
    if services.snapshots.failure is not None:  # anybody may ask: what failed could name hosts and users
        reason = "The control state could not be read; what was read last is served."
        return json_response({"status": "stale", "reason": reason}, 503)
    return json_response({"status": "ready", "snapshot": services.snapshots.current.id})


@router.get("/metrics")
def metrics(services: Parts, _: Reader) -> Response:
    """Prometheus text; scrape with a viewer key as bearer token."""
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
