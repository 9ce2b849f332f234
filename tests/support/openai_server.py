"""A local HTTP server that speaks OpenAI chat completions by script: answers, errors, silence, cut streams.

    async with OpenAiServer() as upstream:
        upstream.plays(Reply(pieces=("Hel", "lo")), Reply(status=429, headers={"Retry-After": "7"}))
        ... point a provider at upstream.base_url ...
        assert upstream.requests[0].body["model"] == "m"

Each request takes the next reply; the last one repeats.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. `raw` replaces the stream's bytes, `whole` the body of an answer that is not streamed
    (or of embeddings); `error` is the body's `error` object.

    `silent_before`: no byte is sent; `silent_after`/`cut_after`: after that many events (the pieces, the finish, the
    usage, `[DONE]`) the stream stays open and silent, or the socket is closed without an end.
    """

    pieces: Sequence[str] = ("Hello", " world")
    finish_reason: str | None = "stop"
    usage: Mapping[str, Any] | None = field(default_factory=lambda: dict(USAGE))
    done: bool = True
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    whole: Mapping[str, Any] | None = None
    silent_before: bool = False
    silent_after: int | None = None
    cut_after: int | None = None


@dataclass(frozen=True, slots=True)
class SeenRequest:
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""


def client_port(request: web.Request) -> int:
    """Tells connections apart, closed ones too."""
    assert request.transport is not None
    port: int = request.transport.get_extra_info("peername")[1]
    return port


class OpenAiServer:
    """Runs on the test's own event loop. `hung_up` is set when a client leaves before its answer's end."""

    def __init__(self) -> None:
        self.requests: list[SeenRequest] = []
        self.hung_up = asyncio.Event()
        self.sockets: set[int] = set()
        self._replies: list[Reply] = [Reply()]
        self._ending = asyncio.Event()

    def plays(self, *replies: Reply) -> None:
        self._replies = list(replies)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> OpenAiServer:
        app = web.Application()
        self._add_routes(app.router)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/chat/completions", self._chat)
        router.add_post("/v1/embeddings", self._chat)
        router.add_get("/v1/models", self._models)

    async def __aexit__(self, *exc: object) -> None:
        self._ending.set()
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(SeenRequest(body, dict(request.headers), request.path_qs))
        self.sockets.add(client_port(request))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        try:
            return await self._answer(request, body, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up.set()
            raise

    async def _answer(
        self, request: web.Request, body: Mapping[str, Any], reply: Reply
    ) -> web.StreamResponse:
        if reply.silent_before:
            await self._ending.wait()
        if reply.status != 200:
            payload = {"error": dict(reply.error or {"message": "scripted"})}
            return web.json_response(payload, status=reply.status, headers=reply.headers)
        if not body.get("stream"):
            whole = _whole(body, reply) if reply.whole is None else reply.whole
            return web.json_response(whole, headers=reply.headers)
        return await self._stream(request, body, reply)

    async def _stream(
        self, request: web.Request, body: Mapping[str, Any], reply: Reply
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **reply.headers})
        await response.prepare(request)
        if reply.raw is not None:
            await response.write(reply.raw)
            return response
        for index, event in enumerate([*_events(body, reply), b""]):
            await self._maybe_stop(request, reply, index)
            await response.write(event)
        return response

    async def _maybe_stop(self, request: web.Request, reply: Reply, index: int) -> None:
        if reply.silent_after == index:
            await self._ending.wait()
        if reply.cut_after == index and request.transport is not None:
            request.transport.abort()


def _events(body: Mapping[str, Any], reply: Reply) -> list[bytes]:
    choices: list[dict[str, Any]] = [
        {"delta": {"content": piece}, "finish_reason": None} for piece in reply.pieces
    ]
    if reply.finish_reason is not None:
        choices.append({"delta": {}, "finish_reason": reply.finish_reason})
    events = [_event(body, [{"index": 0, **choice}]) for choice in choices]
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    if reply.usage is not None and wants_usage:
        events.append(_event(body, [], usage=dict(reply.usage)))
    return [*events, b"data: [DONE]\n\n"] if reply.done else events


def _event(body: Mapping[str, Any], choices: list[Any], **more: Any) -> bytes:
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _whole(body: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(reply.pieces)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": reply.usage,
    }
