"""The whole application: the data plane's bare ASGI callable, and the control plane beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mainstay import __version__, api, web
from mainstay.core.errors import TooLarge
from mainstay.services import Services, running

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL_PATHS = ("/v1/traces",)
"""What stands below `/v1` and is not the gateway's: OpenTelemetry's clients send there."""


def build_app(services: Services) -> AsgiApp:
    """One ASGI application for both planes. Requests of the data plane meet no framework."""
    control = build_control_app(services)
    gateway = services.gateway
    limit_bytes = services.settings.body_limit_mb << 20

    async def mainstay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_gateway(scope["path"]):
            await gateway(scope, receive, send)
        else:
            await control(scope, bounded(receive, limit_bytes), send)

    return mainstay


def _is_gateway(path: str) -> bool:
    """All of `/v1` but telemetry, so that OpenAI's clients read errors in their own form everywhere."""
    control = any(path == known or path.startswith(f"{known}/") for known in CONTROL_PATHS)
    return path.startswith("/v1/") and not control


def bounded(receive: Receive, limit_bytes: int) -> Receive:
    """Raises TooLarge once a body passes the limit: frameworks read it whole, before they ask who sent it."""
    size = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit_bytes:
            raise TooLarge(
                f"The request body is larger than {limit_bytes:,} bytes.",
                fix="Send less, or raise the setting body_limit_mb.",
            )
        return message

    return receive_bounded


def build_gateway_app(services: Services) -> AsgiApp:
    """The data plane alone, with what watches it: `/v1`, `/healthz`, `/readyz`, `/metrics`."""
    watched = _bare_app(services)
    watched.include_router(api.health_router())
    gateway = services.gateway

    async def mainstay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await gateway(scope, receive, send)
        else:
            await watched(scope, receive, send)

    return mainstay


def build_control_app(services: Services) -> FastAPI:
    """Pages and control API. The interactive API pages are off: they would load scripts from other hosts."""
    control = _bare_app(services)
    control.include_router(api.router())
    control.include_router(web.router())
    return control


def _bare_app(services: Services) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(services):
            yield

    bare = FastAPI(
        title="Mainstay",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    bare.state.services = services
    return bare
