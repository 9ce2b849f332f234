"""What can be asked, and how this process finds what stands behind it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Parts, Reader, json_response
from mainstay.api.bodies import answers
from mainstay.models.types import Price, RouteTarget, Target
from mainstay.services import Offered, offered, target_views, whose_states

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["models"])

PRICE_EXAMPLE: dict[str, Any] = {
    "input_nusd": 150.0,
    "output_nusd": 600.0,
    "cached_input_nusd": 75.0,
    "cache_write_nusd": None,
    "cache_write_1h_nusd": None,
    "audio_input_nusd": None,
    "audio_output_nusd": None,
    "request_nusd": 0.0,
    "tiers": [],
    "source": "genai-prices 0.2.3",
    "as_of": "2026-11-24",
}
TARGET_EXAMPLE: dict[str, Any] = {
    "name": "openai/gpt-4o-mini",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "credential": None,
    "weight": 2.0,
    "price": PRICE_EXAMPLE,
    "context_tokens": 128_000,
    "max_output_tokens": None,
    "capabilities": ["images", "json_schema", "seed", "stop", "temperature", "tools"],
}
MODEL_EXAMPLE: dict[str, Any] = {
    "name": "fast",
    "kind": "route",
    "provider": None,
    "note": "weighted route over openai/gpt-4o-mini",
    "policy": "weighted",
    "price": None,
    "context_tokens": 128_000,
    "capabilities": TARGET_EXAMPLE["capabilities"],
    "targets": [TARGET_EXAMPLE],
    "problem": None,
}
STATE_EXAMPLE: dict[str, Any] = {
    "public_name": "openai/gpt-4o-mini",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "credential": None,
    "availability": "open",
    "in_flight": 0,
    "failures_in_a_row": 5,
    "retry_in_s": 7.4,
    "first_token_s": 0.41,
    "whole_s": None,
    "waiting": None,
    "attempts": 112,
    "failures": 6,
    "usual_first_token_s": 0.38,
    "usual_whole_s": None,
}


@router.get("/models", responses=answers({"models": [MODEL_EXAMPLE]}))
async def list_models(
    services: Parts,
    _: Reader,
    kind: Literal["route", "model"] | None = None,
    provider: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Every name that can be asked, with the targets behind it.

    Prices are in nano-dollars per token, and null where they are not known. A route has none of its own; its
    `capabilities` are what at least one target can do, its `context_tokens` the longest.
    """
    found = await offered(services.catalog)
    shown = [_model(o) for o in found if kind in (None, o.kind) and provider in (None, o.info.provider)]
    return json_response({"models": shown})


@router.get("/targets", responses=answers({"process": "all", "targets": [STATE_EXAMPLE], "note": None}))
async def list_targets(services: Parts, _: Reader) -> Response:
    """How the targets are that this process called within the last hour.

    `availability`: closed (in service), open, half_open, limited, key_out. `note` says whose states they are not.
    """
    body = {
        "process": services.role,
        "targets": target_views(services),
        "note": whose_states(services.role),
    }
    return json_response(body)


def _model(found: Offered) -> dict[str, object]:
    info, route = found.info, found.route
    is_route = found.kind == "route"
    return {
        "name": info.name,
        "kind": found.kind,
        "provider": None if is_route else info.provider,
        "note": info.note,
        "policy": route.policy if is_route and route is not None else None,
        "price": _price(info.price),
        "context_tokens": found.context_tokens,
        "capabilities": sorted(found.capabilities),
        "targets": [_target(routed) for routed in (() if route is None else route.targets)],
        "problem": found.problem,
    }


def _target(routed: RouteTarget) -> dict[str, object]:
    target: Target = routed.target
    return {
        "name": target.public_name,
        "provider": target.provider.name,
        "model": target.model,
        "credential": target.credential,
        "weight": routed.weight,
        "price": _price(target.price),
        "context_tokens": target.context_tokens,
        "max_output_tokens": target.max_output_tokens,
        "capabilities": sorted(target.capabilities),
    }


def _price(price: Price | None) -> dict[str, object] | None:
    """All its fields, in the order of the example."""
    if price is None:
        return None
    return {name: getattr(price, name) for name in PRICE_EXAMPLE}
