"""Asking from a page: the models on offer, and an answer as events or whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from mainstay.core.ids import new_trace_id
from mainstay.govern import Identity
from mainstay.models.types import ChatCall, ChatMessage
from mainstay.services import Services
from mainstay.serving import answer
from mainstay.serving.types import Call, ChatRequest, Event


@dataclass(frozen=True, slots=True)
class Choices:
    """Names to choose from: apps with their environments and releases, then plain models."""

    apps: tuple[str, ...]
    models: tuple[str, ...]


def choices(parts: Services) -> Choices:
    runnable = sorted(parts.delivery.runnables(), key=_by_app)
    return Choices(tuple(runnable), tuple(sorted(m.name for m in parts.catalog.names())))


def _by_app(name: str) -> tuple[str, bool, bool, str]:
    app, at, rest = name.partition("@")
    return app, bool(at), rest[:1] == "r" and rest[1:].isdigit(), rest


async def ask(parts: Services, identity: Identity, model: str, question: str) -> AsyncGenerator[Event, None]:
    """The pipeline's own events, as the gateway gets them; closing this cancels the call."""
    request = ChatRequest(model, ChatCall("", (ChatMessage("user", question),)), stream=True)
    call = Call(request=request, identity=identity, trace_id=new_trace_id())
    async with aclosing(answer(call, parts.deps)) as events:
        async for event in events:
            yield event
