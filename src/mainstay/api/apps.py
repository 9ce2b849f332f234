"""Apps, releases, environments, artifacts."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Parts, Reader, Writer, json_response
from mainstay.services import Services

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["apps"])


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")
    release: int = Field(ge=1, description="The release the environment shall point at.")
    reason: str = Field(default="", max_length=2000)


class Back(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: str = Field(default="", max_length=2000)


def _app(services: Services, app: str) -> dict[str, object]:
    return {
        "app": app,
        "environments": services.delivery.environments(app),
        "releases": services.delivery.releases(app),
    }


@router.get("/apps")
def list_apps(services: Parts, _: Reader) -> Response:
    """Every app with its environments and releases."""
    return json_response({"apps": [_app(services, app) for app in services.delivery.apps()]})


@router.get("/apps/{app}")
def get_app(app: str, services: Parts, _: Reader) -> Response:
    return json_response(_app(services, app))


@router.get("/apps/{app}/releases/{number}")
def get_release(app: str, number: int, services: Parts, _: Reader) -> Response:
    """A release's manifest."""
    return json_response(services.delivery.release(app, number))


@router.get("/apps/{app}/releases/{a}/diff/{b}")
def diff_releases(app: str, a: int, b: int, services: Parts, _: Reader) -> Response:
    """What differs between two releases."""
    return json_response(services.delivery.diff(app, a, b))


@router.put("/apps/{app}/environments/{environment}")
def promote(app: str, environment: str, move: Move, services: Parts, actor: Writer) -> Response:
    """Point an environment at a release."""
    return json_response(services.delivery.promote(actor, app, environment, move.release, move.reason))


@router.post("/apps/{app}/environments/{environment}/rollback")
def rollback(app: str, environment: str, back: Back, services: Parts, actor: Writer) -> Response:
    """Point an environment back at the release it had before."""
    return json_response(services.delivery.rollback(actor, app, environment, back.reason))
