"""Ways to ask the data plane of these tests for one answer, and to lay routes in it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from serving_plane import CHEAP, QUESTION, Plane

from mainstay.govern.types import ApiKey, Identity
from mainstay.models.types import ChatCall, ChatMessage, Delta, Route, RouteTarget, Target
from mainstay.serving import Call, ChatRequest, Final, ask
from mainstay.serving.limits.types import Ask
from mainstay.serving.pipeline import answer
from mainstay.serving.types import CacheWish

ADA = Identity("key_ms-good", "Ada", "key", "developer", frozenset({"crew"}))
CALLER = Identity("user_1", "Ada", "user", "developer", frozenset({"crew"}))
ASKED = (ChatMessage("user", QUESTION),)
DEAR = replace(CHEAP, input_nusd=1000.0, output_nusd=4000.0, cached_input_nusd=500.0)


def made(
    key: ApiKey | None = None,
    model: str = "acme/small",
    *,
    stream: bool = False,
    cache: CacheWish = "release",
    max_age_s: float | None = None,
    deadline_s: float | None = None,
    identity: Identity = ADA,
    messages: tuple[ChatMessage, ...] = ASKED,
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Call:
    fields.setdefault("source_format", "openai.chat")
    request = ChatRequest(model, ChatCall("", messages, **fields), stream, metadata=metadata or {})
    return Call(
        request, identity, key, cache=cache, cache_max_age_s=max_age_s, deadline_s=deadline_s
    )  # fmt: skip


async def streamed(plane: Plane, call: Call) -> tuple[list[Delta], Final]:
    deltas, final = [], None
    async with aclosing(answer(call, plane.deps)) as events:
        async for event in events:
            if isinstance(event, Delta):
                deltas.append(event)
            elif isinstance(event, Final):
                final = event
    assert final is not None
    return deltas, final


def route(plane: Plane, name: str, *targets: Target, **fields: Any) -> None:
    listed = tuple(RouteTarget(target) for target in targets)
    plane.deps.models.routes[name] = Route(name, "ordered", listed, **fields)  # type: ignore[attr-defined]


def target_of(provider: Any, name: str, **fields: Any) -> Target:
    values: dict[str, Any] = {"price": CHEAP, "context_tokens": None, "max_output_tokens": 1000, **fields}
    return Target(f"acme/{name}", provider, name, **values)


async def asked(
    plane: Plane, question: str = QUESTION, model: str = "bot", *, identity: Identity = CALLER, **fields: Any
) -> Final:
    """The answer to a question in no API's form, as the control plane's pages ask it."""
    fields = {"messages": (ChatMessage("user", question),), "source_format": None, **fields}
    return await ask(made(model=model, identity=identity, **fields), plane.deps)


async def requests_left(plane: Plane, key: ApiKey) -> int:
    """How many requests the key may still send in this minute, after one that is counted to find out."""
    hold = await plane.deps.limiter.reserve(plane.deps.snapshots.current.scopes_of(key, None), Ask(0, 0, 0))
    plane.deps.limiter.settle(hold, 0, 0)
    assert hold.rate is not None
    return hold.rate.remaining
