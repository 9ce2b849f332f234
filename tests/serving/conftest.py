"""Fixtures of the serving tests: a data plane of small parts, and a real server for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from serving_plane import Plane, build_plane

from mainstay.serving.gateway import Gateway


@pytest.fixture
def plane() -> Plane:
    return build_plane()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Gateway], Any]]:
    """Starts a gateway on a free port under a real uvicorn; gives its base URL."""
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def start(gateway: Gateway) -> str:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(gateway, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        running.append((server, task))
        while not server.started:
            await asyncio.sleep(0.005)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for server, task in running:
        server.should_exit = True
        await task
