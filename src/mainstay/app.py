"""The whole application: the data plane's bare ASGI callable, and the control plane beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mainstay import __version__, api, web
from mainstay.services import Services

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

GATEWAY_PATHS = ("/v1/chat/completions", "/v1/models", "/v1/embeddings")


def build_app(services: Services) -> AsgiApp:
    """One ASGI application for both planes. Requests of the data plane meet no framework."""
    control = build_control_app(services)
    gateway = services.gateway

    async def mainstay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(GATEWAY_PATHS):
            await gateway(scope, receive, send)
        else:
            await control(scope, receive, send)

    return mainstay


def build_control_app(services: Services) -> FastAPI:
    """Pages and control API. The interactive API pages are off: they would load scripts from other hosts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.catalog.close()

    control = FastAPI(
        title="Mainstay",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    control.state.services = services
    control.include_router(api.router())
    control.include_router(web.router())
    return control
