"""Keys, users and the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Governor, Parts, json_response
from mainstay.api.bodies import LIMITS_EXAMPLE, LimitsBody, answers, limits_of, shown_limits
from mainstay.core.errors import InvalidInput
from mainstay.core.jsonable import plain
from mainstay.core.money import nusd_from_usd
from mainstay.govern import ApiKey, Budget, BudgetWindow, Directory, Limits, ScopeKind

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["people"])

RoleName = Literal["viewer", "developer", "admin"]


KEY_EXAMPLE: dict[str, Any] = {
    "id": "key_01a20d66c0de7b2f8a4e5d6c7b8a9f01",
    "name": "web shop",
    "prefix": "ms-Ab3xYz",
    "role": "viewer",
    "models": ["support-bot"],
    "groups": [],
    "limits": LIMITS_EXAMPLE,
    "created_at_us": 1_795_514_400_000_000,
    "expires_at_us": None,
    "revoked_at_us": None,
    "user_id": None,
    "team_id": "team_01a20d66a1b27c3d8e4f5a6b7c8d9e0f",
    "project_id": None,
}


class NewKey(BaseModel):
    """`user`, `team` and `project` are names or ids. The three fields before `limits` are a short form of it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "web shop", "models": ["support-bot"], "team": "support", "limits": LIMITS_EXAMPLE}
            ]
        },
    )
    name: str = Field(min_length=1, max_length=200)
    role: RoleName = "viewer"
    models: list[str] | None = None
    groups: list[str] = []
    budget_usd: str | None = Field(default=None, description="Hard limit in dollars, as a decimal string.")
    budget_window: BudgetWindow = "month"
    requests_per_minute: int | None = Field(default=None, ge=1)
    limits: LimitsBody | None = None
    user: str | None = Field(default=None, description="The person it belongs to: e-mail address or id.")
    team: str | None = Field(default=None, description="The team it belongs to: name or id.")
    project: str | None = Field(default=None, description="The project it is made for: name or id.")
    expires_at_us: int | None = None


class KeyOwners(BaseModel):
    """Names or ids; what is left out stays, null takes it away."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"team": "support", "project": None}]}
    )
    user: str | None = None
    team: str | None = None
    project: str | None = None


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")
    email: str = Field(min_length=3, max_length=320)
    name: str = Field(default="", max_length=200)
    role: RoleName = "viewer"
    password: str | None = Field(default=None, min_length=12, max_length=1000)


def _shown(key: ApiKey) -> dict[str, object]:
    body = plain(key)
    del body["token_hash"]
    return {**body, "limits": shown_limits(key.limits)}


@router.get("/keys", responses=answers({"keys": [KEY_EXAMPLE]}))
def list_keys(services: Parts, _: Governor) -> Response:
    return json_response({"keys": [_shown(k) for k in services.keys.list()]})


@router.post("/keys", status_code=201, responses=answers({**KEY_EXAMPLE, "token": "ms-…"}, 201))
def create_key(new: NewKey, services: Parts, actor: Governor) -> Response:
    """Make a key; `token` is in this answer and nowhere else."""
    directory = services.directory()
    key, token = services.keys.create(
        actor,
        new.name,
        role=new.role,
        models=new.models,
        groups=frozenset(new.groups),
        limits=_limits(new),
        user_id=_found(directory, "user", new.user),
        team_id=_found(directory, "team", new.team),
        project_id=_found(directory, "project", new.project),
        expires_at_us=new.expires_at_us,
    )
    return json_response({**_shown(key), "token": token.reveal()}, 201)


@router.patch("/keys/{key_id}", responses=answers(KEY_EXAMPLE))
def assign_key(key_id: str, given: KeyOwners, services: Parts, actor: Governor) -> Response:
    """Say anew whom a key belongs to."""
    directory = services.directory()
    before = directory.keys[directory.find("key", key_id)]

    def new(kind: ScopeKind, text: str | None, old: str | None) -> str | None:
        return _found(directory, kind, text) if kind in given.model_fields_set else old

    key = services.keys.assign(
        actor,
        before.id,
        user_id=new("user", given.user, before.user_id),
        team_id=new("team", given.team, before.team_id),
        project_id=new("project", given.project, before.project_id),
    )
    return json_response(_shown(key))


def _limits(new: NewKey) -> Limits:
    if new.limits is None:
        budget = None if new.budget_usd is None else Budget(nusd_from_usd(new.budget_usd), new.budget_window)
        return Limits(new.requests_per_minute, budgets=() if budget is None else (budget,))
    if new.budget_usd is not None or new.requests_per_minute is not None:
        raise InvalidInput("Limits are given twice.", fix="Put the budget and the rate into `limits`, too.")
    return limits_of(new.limits)


def _found(directory: Directory, kind: ScopeKind, text: str | None) -> str | None:
    return None if text is None else directory.find(kind, text)


@router.delete("/keys/{key_id}")
def revoke_key(key_id: str, services: Parts, actor: Governor) -> Response:
    """Revoke a key; gateways refuse it within a second."""
    services.keys.revoke(actor, key_id)
    return json_response({"id": key_id, "state": "revoked"})


@router.get("/users")
def list_users(services: Parts, _: Governor) -> Response:
    return json_response({"users": services.users.list()})


@router.post("/users", status_code=201)
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
