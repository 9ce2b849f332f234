"""The whole application: the data plane's bare ASGI callable, and the control plane beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mainstay import __version__, api, web
from mainstay.core.errors import NotFound, TooLarge
from mainstay.services import Services, running
from mainstay.serving import reply_to

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL_PATHS = ("/v1/traces",)
"""What stands below `/v1` and is not the gateway's: OpenTelemetry's clients send there."""

WATCH_PATHS = ("/healthz", "/readyz", "/metrics")


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


def build_gateway_app(services: Services, *, shares_port: bool = False) -> AsgiApp:
    """The data plane alone, with what watches it: `/v1`, `/healthz`, `/readyz`, `/metrics`.

    On a port that several processes share nobody knows which of them answers, so `/metrics` is not there.
    """
    watched = _bare_app(services)
    watched.include_router(api.health_router())
    known = {*WATCH_PATHS, watched.openapi_url} - ({"/metrics"} if shares_port else set())
    gateway = services.gateway

    async def mainstay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await gateway(scope, receive, send)
        elif scope["type"] == "lifespan" or scope["path"] in known:
            await watched(scope, receive, send)
        else:
            await _send_not_here(send, scope["path"], _hint(scope["path"]))

    return mainstay


def _hint(path: str) -> str:
    if path == "/metrics":
        return "Several processes share this port; give them ports of their own for it: --metrics-port."
    return "This process is a gateway alone. Pages and the control API are served by `mainstay control`."


def build_watch_app(services: Services) -> AsgiApp:
    """Only what watches one process, for a port of its own."""
    watched = _bare_app(services)
    watched.include_router(api.health_router())
    return watched


def build_control_app(services: Services) -> FastAPI:
    """Pages and control API. The interactive API pages are off: they would load scripts from other hosts."""
    control = _bare_app(services)
    control.include_router(api.router())
    control.include_router(web.router())
    return control


def build_control_alone(services: Services) -> AsgiApp:
    """The control plane without the gateway; whoever asks it for an answer is told where to go."""
    control = build_control_app(services)
    limit_bytes = services.settings.body_limit_mb << 20

    async def mainstay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_gateway(scope["path"]):
            fix = (
                "This process is the control plane alone. Ask `mainstay gateway`, or run both: `mainstay up`."
            )
            await _send_not_here(send, scope["path"], fix)
        else:
            await control(scope, bounded(receive, limit_bytes), send)

    return mainstay


async def _send_not_here(send: Send, path: str, fix: str) -> None:
    reply = reply_to(NotFound(f"There is no {path} here.", fix=fix))
    body = json.dumps(reply.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
