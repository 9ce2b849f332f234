"""HTTP for programs: the control plane under `/api/v1`, OTLP ingest, metrics, health."""

from fastapi import APIRouter

from mainstay.api import apps, evaluations, health, knowledge, limits, models, people, traces
from mainstay.api.access import API_ROUTE_CLASS, Access
from mainstay.api.documented import ERRORS


def router() -> APIRouter:
    """Every control-plane route; each declares the permission it needs (`Access`)."""
    whole = APIRouter(route_class=API_ROUTE_CLASS, responses=ERRORS)
    for part in (health, apps, knowledge, traces, evaluations, people, limits, models):
        whole.include_router(part.router)
    return whole


def health_router() -> APIRouter:
    """Only what watches a process: health, readiness, metrics."""
    return health.router


__all__ = ["Access", "health_router", "router"]
