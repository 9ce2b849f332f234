"""Small ASGI helpers: read a bounded body, answer JSON, write server-sent events, notice a client that left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

import orjson

from mainstay.core.errors import InvalidInput, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[str, str]

PING_AFTER_S = 10.0


class ClientLeft(Exception):
    """The client closed the connection before its answer was complete."""


def header(scope: Scope, name: str) -> str | None:
    """The first header called `name` (lower case), as text."""
    wanted = name.encode("latin-1")
    for key, value in scope["headers"]:
        if key == wanted:
            return str(value.decode("latin-1"))
    return None


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The whole request body. Raises TooLarge beyond the limit, ClientLeft when the client hangs up."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(
                f"The request body is larger than {limit_bytes:,} bytes.",
                fix="Send less, or raise the setting body_limit_mb.",
            )
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidInput naming line and column of a mistake."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"The request body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
            fix="Send a JSON object in UTF-8.",
        ) from error
    if not isinstance(value, dict):
        raise InvalidInput("The request body must be a JSON object.", fix='Send {"model": …, "messages": …}.')
    return value


async def send_json(send: Send, status: int, value: Any, headers: Headers) -> None:
    await send_bytes(send, status, orjson.dumps(value), headers, b"application/json")


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers, content_type: bytes) -> None:
    raw = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *_raw(headers)]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("latin-1"), value.encode("latin-1", "replace").replace(b"\n", b" ").replace(b"\r", b" "))
        for name, value in headers.items()
    ]


class EventWriter:
    """Writes server-sent events; the response starts with the first one, so errors before it keep their status.

    Within `keep_alive()` a comment is sent after each `ping_after_s` of silence, so that proxies do not
    cut a slow answer (WHATWG HTML §9.2.6). The first comment also starts the response.
    """

    def __init__(
        self, send: Send, headers: Callable[[], Headers], ping_after_s: float = PING_AFTER_S
    ) -> None:
        self._send = send
        self._headers = headers
        self._ping_after_s = ping_after_s
        self._last_s = 0.0
        self._turn = (
            asyncio.Lock()
        )  # a comment must not slip between the response's start and its first event
        self.started = False

    async def write(self, data: bytes) -> None:
        await self._write(b"data: " + data + b"\n\n")

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    @contextlib.asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[None]:
        self._last_s = asyncio.get_running_loop().time()
        pinger = asyncio.create_task(self._ping())
        try:
            yield
        finally:
            await _stop(pinger)

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silent_s = loop.time() - self._last_s
            if silent_s >= self._ping_after_s:
                await self._write(b": ping\n\n")
            else:
                await asyncio.sleep(self._ping_after_s - silent_s)

    async def _write(self, frame: bytes) -> None:
        async with self._turn:
            if not self.started:
                await self._start()
            self._last_s = asyncio.get_running_loop().time()
            await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    async def _start(self) -> None:
        raw = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *_raw(self._headers()),
        ]
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; when the client leaves first, cancel it at once and wait until it has cleaned up.

    Call it after the body was read: whatever `receive` brings then is the disconnect.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _stop(watcher)
        left = not task.done()
        if left:
            await _stop(task)
    if not left:
        task.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen, so that it is not reported as never retrieved
