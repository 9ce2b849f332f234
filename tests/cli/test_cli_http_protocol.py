"""The HTTP of Mainstay's servers says, byte for byte, what uvicorn's own says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mainstay.cli.http_protocol import HttpProtocol

App = Callable[..., Awaitable[None]]
JSON = (b"Content-Type", b"application/json")
POST = b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-Y: z\r\n"
CLOSING = b"Connection: close\r\n\r\n"


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: App, protocol: type[asyncio.Protocol], keep_alive_s: int = 5) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=keep_alive_s
    )
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        server = Server(config)
        task = asyncio.create_task(server.serve([sock]))
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def said(app: App, protocol: type[asyncio.Protocol], *requests: bytes) -> bytes:
    """All that the server says to these bytes until it closes the connection."""
    async with serving(app, protocol, keep_alive_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in requests:
            writer.write(part)
            await writer.drain()
        answer = await reader.read()
        writer.close()
        return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"date:"))


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    told = {k: v for k, v in scope.items() if k not in ("client", "server", "asgi", "state")}
    body = repr((sorted(told.items()), await body_of(receive))).encode()
    headers = [JSON, (b"content-length", b"%d" % len(body)), (b"x-tab", b"a\tb\xff")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[:10], "more_body": True})
    await send({"type": "http.response.body", "body": body[10:]})


async def events(scope: Any, receive: Any, send: Any) -> None:
    await body_of(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
    for number in range(300):
        await send({"type": "http.response.body", "body": b"%d" % number * 99, "more_body": True})
        if number % 50 == 0:
            await asyncio.sleep(0.002)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def answering(status: int, *headers: tuple[bytes, bytes], body: bytes = b"", more: bool = False) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


def cut_short(error: Exception | None) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"first", b"second", b"what went wrong"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if error is not None:
            raise error

    return app


CASES: dict[str, tuple[App, tuple[bytes, ...]]] = {
    "whole": (echo, (POST + b"content-length: 3\r\n" + CLOSING, b"abc")),
    "kept alive, then idle": (echo, (POST + b"content-length: 3\r\n\r\nabc",)),
    "two, one after the other": (echo, (POST + b"\r\n", POST + CLOSING)),
    "pipelined": (echo, (POST + b"\r\n" + POST + b"content-length: 1\r\n\r\nx" + POST + CLOSING,)),
    "pipelined streams": (events, (POST + b"\r\n" + POST + CLOSING,)),
    "uploaded in chunks": (
        echo,
        (POST + b"transfer-encoding: chunked\r\n" + CLOSING, b"3\r\nabc\r\n", b"0\r\n\r\n"),
    ),
    "continued": (echo, (POST + b"expect: 100-continue\r\ncontent-length: 3\r\n" + CLOSING, b"abc")),
    "streamed": (events, (POST + CLOSING,)),
    "HTTP/1.0": (echo, (b"GET / HTTP/1.0\r\n\r\n",)),
    "HTTP/1.0 streamed": (events, (b"GET / HTTP/1.0\r\n\r\n",)),
    "HEAD": (answering(200, (b"content-length", b"5")), (b"HEAD / HTTP/1.1\r\nHost: x\r\n" + CLOSING,)),
    "HEAD streamed": (answering(200, body=b"a"), (b"HEAD / HTTP/1.1\r\nHost: x\r\n" + CLOSING,)),
    "204": (answering(204, (b"X-Mixed", b"1")), (POST + CLOSING,)),
    "no reason known": (answering(299, body=b"a"), (POST + CLOSING,)),
    "closed by the app": (
        answering(503, (b"connection", b"Close"), (b"content-length", b"0")),
        (POST + b"\r\n",),
    ),
    "chunked by the app": (answering(200, (b"transfer-encoding", b"chunked"), body=b"a"), (POST + CLOSING,)),
    "left without an end": (answering(200, body=b"a", more=True), (POST + b"\r\n",)),
    "left without an end after a burst": (cut_short(None), (POST + b"\r\n",)),
    "broken after a burst": (cut_short(ValueError("of the app")), (POST + b"\r\n",)),
    "an upgrade is not made": (echo, (POST + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",)),
    "no HTTP": (echo, (b"nonsense\r\n\r\n",)),
    "a header's name is none": (answering(200, (b"a b", b"c"), body=b"a"), (POST + CLOSING,)),
    "a header's value would end its line": (
        answering(200, (b"a", b"b\r\nc: d"), body=b"a"),
        (POST + CLOSING,),
    ),
    "a header's value has a control character": (
        answering(200, (b"a", b"b\x00"), body=b"a"),
        (POST + CLOSING,),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bytes_on_the_wire_are_uvicorns(case: str) -> None:
    app, requests = CASES[case]

    async def both() -> tuple[bytes, bytes]:
        ours, theirs = (said(app, protocol, *requests) for protocol in (HttpProtocol, HttpToolsProtocol))
        return await asyncio.gather(ours, theirs)

    ours, theirs = uvloop.run(both())

    assert ours == theirs


def test_nothing_is_said_of_an_answer_that_breaks_before_its_body() -> None:
    app = answering(200, (b"content-length", b"1"), body=b"ab")

    assert uvloop.run(said(app, HttpProtocol, POST + CLOSING)) == b""


def test_a_piece_goes_out_before_the_next_one_is_made() -> None:
    shown = asyncio.Event()

    async def paced(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"first", b"second", b"third"):
            shown.clear()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await shown.wait()
        await send({"type": "http.response.body", "body": b""})

    async def read() -> None:
        async with serving(paced, HttpProtocol) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + CLOSING)
            for piece in (b"first", b"second", b"third"):
                await asyncio.wait_for(reader.readuntil(piece), 10)
                shown.set()
            await reader.read()
            writer.close()

    uvloop.run(read())


def test_who_reads_slowly_makes_the_app_wait() -> None:
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            sent += 1
            if sent % 100 == 0:
                await asyncio.sleep(0)

    async def read() -> int:
        async with serving(endless, HttpProtocol) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(POST + CLOSING)
            before = -1
            while before != sent or sent == 0:
                before = sent
                await asyncio.sleep(0.2)
            writer.close()
            found = sent
            for task in asyncio.all_tasks():
                if "run_asgi" in repr(task):
                    task.cancel()
            return found

    assert uvloop.run(read()) < 100_000
