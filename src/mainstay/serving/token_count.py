"""Counting the tokens of a request before it is sent, in Anthropic's and in OpenAI's form.

The provider's own counter is asked where it has one; else the count is an estimate, and says so in a header
of its own kind: the body's member `mainstay.estimated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import orjson

from mainstay.govern.types import ApiKey
from mainstay.models import UnknownModel, estimate_usage
from mainstay.models.types import ChatCall, Target
from mainstay.serving.deps import Deps
from mainstay.serving.errors import ModelNotAllowed, ModelNotFound
from mainstay.serving.preparing import for_target
from mainstay.serving.snapshot import may_use
from mainstay.serving.surfaces import SURFACES
from mainstay.serving.types import ChatRequest


@runtime_checkable
class CallCounter(Protocol):
    """A provider that counts a whole call's input tokens as it would bill them."""

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int: ...


async def count_tokens(path: str, body: Mapping[str, Any], key: ApiKey | None, deps: Deps) -> bytes:
    """The reply's body. Raises BadField, ModelNotAllowed, ModelNotFound, ProviderError."""
    surface = "messages" if path.startswith("/v1/messages") else "responses"
    request = SURFACES[surface].read(_countable(surface, body))
    tokens, exact = await _count(request, key, deps)
    told: dict[str, Any] = {"input_tokens": tokens}
    if surface == "responses":
        told["object"] = "response.input_tokens"
    return orjson.dumps({**told, "mainstay": {"estimated": not exact}})


def _countable(surface: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Counting needs no output limit, which Anthropic's messages otherwise demand."""
    return {"max_tokens": 1, **body} if surface == "messages" else body


async def _count(request: ChatRequest, key: ApiKey | None, deps: Deps) -> tuple[int, bool]:
    if not may_use(key, request.model):
        raise ModelNotAllowed(request.model)
    runnable = deps.snapshots.current.resolve(request.model)
    try:
        route = deps.models.route(request.model if runnable is None else runnable.model)
    except UnknownModel as error:
        raise ModelNotFound(request.model, deps.snapshots.current.models, error.how_to_know) from error
    target = route.targets[0].target
    if runnable is None and isinstance(target.provider, CallCounter):
        return await target.provider.count_call_tokens(_whole(request.call, target)), True
    return estimate_usage(request.call, "").input_tokens, False


def _whole(call: ChatCall, target: Target) -> ChatCall:
    return replace(for_target(call, target), source=None)
