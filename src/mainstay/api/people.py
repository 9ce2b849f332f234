"""Keys, users and the audit log."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Governor, Parts, json_response
from mainstay.core.jsonable import plain
from mainstay.core.money import nusd_from_usd
from mainstay.govern import ApiKey

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["people"])

RoleName = Literal["viewer", "developer", "admin"]


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=200)
    role: RoleName = "viewer"
    models: list[str] | None = None
    groups: list[str] = []
    budget_usd: str | None = Field(default=None, description="Hard limit in dollars, as a decimal string.")
    budget_window: Literal["day", "month", "total"] = "month"
    requests_per_minute: int | None = Field(default=None, ge=1)
    expires_at_us: int | None = None


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: str = Field(min_length=3, max_length=320)
    name: str = Field(default="", max_length=200)
    role: RoleName = "viewer"
    password: str | None = Field(default=None, min_length=12, max_length=1000)


def _shown(key: ApiKey) -> dict[str, object]:
    body = plain(key)
    del body["token_hash"]
    return dict(body)


@router.get("/keys")
def list_keys(services: Parts, _: Governor) -> Response:
    return json_response({"keys": [_shown(k) for k in services.keys.list()]})


@router.post("/keys")
def create_key(new: NewKey, services: Parts, actor: Governor) -> Response:
    """Make a key; `token` is in this answer and nowhere else."""
    key, token = services.keys.create(
        actor,
        new.name,
        role=new.role,
        models=new.models,
        groups=frozenset(new.groups),
        budget_nusd=None if new.budget_usd is None else nusd_from_usd(new.budget_usd),
        budget_window=new.budget_window,
        requests_per_minute=new.requests_per_minute,
        expires_at_us=new.expires_at_us,
    )
    return json_response({**_shown(key), "token": token.reveal()}, 201)


@router.delete("/keys/{key_id}")
def revoke_key(key_id: str, services: Parts, actor: Governor) -> Response:
    """Revoke a key; gateways refuse it within a second."""
    services.keys.revoke(actor, key_id)
    return json_response({"id": key_id, "state": "revoked"})


@router.get("/users")
def list_users(services: Parts, _: Governor) -> Response:
    return json_response({"users": services.users.list()})


@router.post("/users")
def create_user(new: NewUser, services: Parts, actor: Governor) -> Response:
    user = services.users.create(
        actor, new.email, new.name or new.email.partition("@")[0], new.role, new.password
    )
    return json_response(user, 201)


@router.get("/audit")
def list_audit(
    services: Parts,
    _: Governor,
    before: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Newest first; pass the last sequence number as `before` for the next page."""
    return json_response({"entries": services.audit.list(before=before, limit=limit)})


@router.get("/audit/verify")
def verify_audit(services: Parts, _: Governor) -> Response:
    """Recompute the hash chain over the whole log."""
    return json_response(services.audit.verify())
