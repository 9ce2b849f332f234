"""Ways into a gateway that is served on a socket: raw bodies, and the official SDKs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import openai
import orjson
import pytest
import uvicorn
from serving_plane import QUESTION, Plane

HI = {"role": "user", "content": "hi"}
ASK: list[Any] = [{"role": "user", "content": QUESTION}]
BEARER = {"authorization": "Bearer ms-good"}
PATHS = ("chat/completions", "responses", "messages", "completions")


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The base URL of the application under a real server."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def door(serve: Any, plane: Plane, **options: Any) -> AsyncIterator[Any]:
    url = await serve(plane.gateway(**options))

    async def post(path: str, body: Any, **more: Any) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with http.post(f"{url}{path}", data=data, **more) as response:
            return response.status, await response.text()

    async with aiohttp.ClientSession(headers=BEARER) as http:
        yield post


@asynccontextmanager
async def stream_of(
    serve: Any, plane: Plane, *, headers: Mapping[str, str] = BEARER, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A chat's stream as it arrives."""
    url = await serve(plane.gateway(**options))
    body = {"model": "acme/small", "messages": ASK, "stream": True}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/chat/completions", json=body) as response,
    ):
        yield response


def asked_by(path: str, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "acme/small", "stream": stream}
    if path == "responses":
        return body | {"input": "hi", "store": False}
    if path == "completions":
        return body | {"prompt": "hi"}
    return body | {"messages": [HI]} | ({"max_tokens": 99} if path == "messages" else {})


def decoded(text: str) -> str:
    """The answer's strings as a client has them, so that no escape hides anything; streamed pieces joined, too."""
    values = [line[5:].strip() for line in text.split("\n") if line.startswith("data:")] or [text]
    found: list[str] = []
    joined: defaultdict[tuple[Any, ...], str] = defaultdict(str)

    def walk(value: Any, place: tuple[Any, ...]) -> None:
        if isinstance(value, str):
            found.append(value)
            joined[place] += value
            if value.startswith("{"):
                with suppress(ValueError):
                    walk(json.loads(value), (*place, "json"))
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for name, item in inner:
            walk(item, (*place, name))

    for value in values:
        if value != "[DONE]":
            walk(json.loads(value), ())
    return "\n".join((*found, *joined.values()))


@asynccontextmanager
async def client(
    serve: Any, plane: Plane, token: str = "ms-good", **options: Any
) -> AsyncIterator[openai.AsyncOpenAI]:
    url = await serve(plane.gateway(**options))
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0) as sdk:
        yield sdk


async def read_until_cut(response: aiohttp.ClientResponse) -> str:
    """All that comes before the connection is dropped: a failed answer must not end as a whole one does."""
    read: list[bytes] = []

    async def read_all() -> None:
        async for chunk in response.content.iter_any():
            read.append(chunk)

    with pytest.raises(aiohttp.ClientPayloadError):
        await read_all()
    return b"".join(read).decode()
