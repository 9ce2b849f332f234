"""Counting the tokens of a request before it is sent, in Anthropic's and in OpenAI's form.

The provider's own counter is asked where it has one; else the count is an estimate, and the body says so in
`mainstay.estimated`.
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
from mainstay.serving.input_rail import guarded
from mainstay.serving.limits.types import Ask
from mainstay.serving.preparing import for_target
from mainstay.serving.snapshot import may_use
from mainstay.serving.surfaces.messages import MessagesSurface
from mainstay.serving.types import ChatRequest

_MESSAGES = MessagesSurface()
_FREE = Ask(tokens=0, wanted_nusd=0, least_nusd=0)


@runtime_checkable
class CallCounter(Protocol):
    """A provider that counts a whole call's input tokens as it would bill them."""

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int: ...


async def count_message_tokens(body: Mapping[str, Any], key: ApiKey | None, deps: Deps) -> bytes:
    """Anthropic's reply (`POST /v1/messages/count_tokens`). Raises as `count_tokens` does."""
    tokens, exact = await count_tokens(_MESSAGES.read_count(body), key, deps)
    return orjson.dumps({"input_tokens": tokens, "mainstay": {"estimated": not exact}})


async def count_response_tokens(request: ChatRequest, key: ApiKey | None, deps: Deps) -> bytes:
    """OpenAI's reply (`POST /v1/responses/input_tokens`). Raises as `count_tokens` does."""
    tokens, exact = await count_tokens(request, key, deps)
    told = {"object": "response.input_tokens", "input_tokens": tokens}
    return orjson.dumps({**told, "mainstay": {"estimated": not exact}})


async def count_tokens(request: ChatRequest, key: ApiKey | None, deps: Deps) -> tuple[int, bool]:
    """(input tokens, whether its provider counted them). Raises ModelNotAllowed, ModelNotFound, ContentBlocked, the limits'
    refusals and ProviderError.

    To ask a provider is to send it the text: it goes as the input rail lets it go on.
    """
    if not may_use(key, request.model):
        raise ModelNotAllowed(request.model)
    scopes = deps.snapshots.current.scopes_of(key, None)
    if scopes:  # counted as a request, of no cost
        deps.limiter.settle(await deps.limiter.reserve(scopes, _FREE), 0, 0)
    runnable = deps.snapshots.current.resolve(request.model)
    try:
        route = deps.models.route(request.model if runnable is None else runnable.model)
    except UnknownModel as error:
        visible = [name for name in deps.snapshots.current.models if may_use(key, name)]
        raise ModelNotFound(request.model, visible, error.how_to_know) from error
    target = route.targets[0].target
    if runnable is None and isinstance(target.provider, CallCounter):
        return await target.provider.count_call_tokens(
            _whole(await guarded(request.call, deps.snapshots.current.default_policy, deps), target)
        ), True
    return estimate_usage(request.call, "").input_tokens, False


def _whole(call: ChatCall, target: Target) -> ChatCall:
    return replace(for_target(call, target), source=None)
