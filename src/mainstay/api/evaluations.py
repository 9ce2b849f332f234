"""Evaluation runs and their comparison."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Parts, Reader, json_response
from mainstay.evaluate import compare

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["evaluations"])


@router.get("/evaluations")
def list_runs(services: Parts, _: Reader, target: str | None = None) -> Response:
    """Runs, newest first, with their means and intervals."""
    rows = [
        {
            "id": r.id,
            "target": r.target,
            "dataset": r.dataset,
            "created_at_us": r.created_at_us,
            "means": r.means,
        }
        for r in services.evaluations.runs(target)
    ]
    return json_response({"runs": rows})


@router.get("/evaluations/{run_id}")
def get_run(run_id: str, services: Parts, _: Reader) -> Response:
    """A run with every case's scores and answer."""
    return json_response(services.evaluations.run(run_id))


@router.get("/evaluations/{a}/compare/{b}")
def compare_runs(a: str, b: str, services: Parts, _: Reader) -> Response:
    """Paired differences b - a with 95 % intervals."""
    return json_response({"comparisons": compare(services.evaluations.run(a), services.evaluations.run(b))})
