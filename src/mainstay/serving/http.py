"""Small ASGI helpers: read a bounded body, answer JSON, write server-sent events, notice a client that left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from mainstay.core.errors import InvalidInput, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

PING_AFTER_S = 10.0
STALLED_AFTER_S = 60.0

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ClientLeft(Exception):
    """The client closed the connection before its answer was complete."""


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


async def send_json(send: Send, status: int, value: Any, headers: RawHeaders) -> None:
    await send_bytes(send, status, orjson.dumps(value), headers)


async def send_bytes(send: Send, status: int, body: bytes, headers: RawHeaders) -> None:
    """A whole JSON body."""
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def raw_header(name: bytes, value: str) -> tuple[bytes, bytes]:
    """A header as ASGI wants it; what could end the line early becomes a space."""
    data = value.encode("latin-1", "replace")
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    return name, data


class EventWriter:
    """Writes an event stream; the response starts with the first frame, so errors before it keep their status.

    `send` waits while a slow client's buffers are full, so memory stays bounded; a client that takes nothing for
    `stalled_after_s` is cut off by `on_stall`. After each `ping_after_s` of silence `ping` is sent, so that
    proxies do not cut a slow answer (WHATWG HTML §9.2.6). The first ping also starts the response.
    """

    def __init__(
        self,
        send: Send,
        headers: Callable[[], RawHeaders],
        ping: bytes,
        *,
        ping_after_s: float = PING_AFTER_S,
        stalled_after_s: float = STALLED_AFTER_S,
        on_stall: Callable[[], None] | None = None,
    ) -> None:
        self._send = send
        self._headers = headers
        self._frame_ping = ping
        self._ping_after_s = ping_after_s
        self._stalled_after_s = stalled_after_s
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._writing = False
        self._pinging: asyncio.Task[None] | None = None
        self._alarm = self._loop.call_later(ping_after_s, self._look)
        self.started = False

    def write(self, frames: bytes, *, more_body: bool = True) -> Awaitable[None]:
        """Not `more_body`: the clean end of the response."""
        if self._pinging is None:
            return self._write(frames, more_body)
        return self._write_after_ping(self._pinging, frames, more_body)

    async def _write_after_ping(self, pinging: asyncio.Task[None], frames: bytes, more_body: bool) -> None:
        """A ping must not slip between the response's start and its first event."""
        await asyncio.wait({pinging})
        await self._write(frames, more_body)

    async def _write(self, frames: bytes, more_body: bool = True) -> None:
        self._writing = True
        self._last_s = self._loop.time()
        if not self.started:
            self.started = True
            headers = [*_STREAM_HEADERS, *self._headers()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": frames, "more_body": more_body})
        self._writing = False

    def stop(self) -> None:
        """No more pings. Call it on every way out."""
        self._alarm.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    def _look(self) -> None:
        """The alarm: one timer that looks when the last frame went out, instead of one for each frame."""
        silent_s = self._loop.time() - self._last_s
        if self._writing:
            if silent_s >= self._stalled_after_s and self._on_stall is not None:
                self._on_stall()
                return
            self._alarm = self._loop.call_later(self._ping_after_s, self._look)
        elif silent_s >= self._ping_after_s:
            self._pinging = self._loop.create_task(self._write(self._frame_ping))
            self._pinging.add_done_callback(self._pinged)
            self._alarm = self._loop.call_later(self._ping_after_s, self._look)
        else:
            self._alarm = self._loop.call_later(self._ping_after_s - silent_s, self._look)

    def _pinged(self, task: asyncio.Task[None]) -> None:
        self._pinging = None
        if not task.cancelled():
            task.exception()  # a client that is gone is noticed by the next frame
