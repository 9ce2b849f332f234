"""A local HTTP server that speaks Anthropic's Messages API by script: messages, errors, silence, cut streams.

Follows the Claude API reference, "Messages", "Streaming messages", "Token counting" and "Errors"
(`anthropic-version: 2023-06-01`), as of 2026-11. A message is given whole; asked for a stream, the server sends
it as the documented events, text and arguments in small pieces.

    async with AnthropicServer() as upstream:
        upstream.plays(Reply(message(text("Hi"))), Reply(status=429, error={"type": "rate_limit_error"}))

Each request takes the next reply; the last one repeats.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from support.openai_server import client_port

USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 7,
    "cache_read_input_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 5},
    "service_tier": "standard",
}
PIECE = 4


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def message(*content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": dict(USAGE),
        **more,
    }


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. `frames` replaces the stream's; `error` is the body's `error` object.

    `silent_before`: no byte is sent. After so many frames: `silent_after`, the stream stays open and silent;
    `cut_after`, half of the next frame is sent and the socket closed; `end_after`, the body ends properly.
    """

    answer: Mapping[str, Any] = field(default_factory=lambda: message(text("Hello world")))
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    frames: Sequence[bytes] | None = None
    silent_before: bool = False
    silent_after: int | None = None
    cut_after: int | None = None
    end_after: int | None = None


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """`path` as it was sent, nothing unescaped."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    data: bytes


class ScriptedServer:
    """Runs on the test's own event loop. `hung_up` is set when a client leaves before its answer's end."""

    content_type = "text/event-stream"

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
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ending.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        seen = SeenRequest(request.raw_path, json.loads(data), dict(request.headers), data)
        self.requests.append(seen)
        self.sockets.add(client_port(request))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        try:
            if reply.silent_before:
                await self._ending.wait()
            return await self.answer(request, seen, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up.set()
            raise

    async def answer(self, request: web.Request, seen: SeenRequest, reply: Reply) -> web.StreamResponse:
        raise NotImplementedError

    async def send(self, request: web.Request, reply: Reply, frames: Sequence[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self.content_type, **reply.headers})
        await response.prepare(request)
        for index, frame in enumerate([*frames, b""]):
            if reply.silent_after == index:
                await self._ending.wait()
            if reply.end_after == index:
                break
            if reply.cut_after == index and request.transport is not None:
                await response.write(frame[: len(frame) // 2])
                request.transport.abort()
                break
            if frame:
                await response.write(frame)
        return response


class AnthropicServer(ScriptedServer):
    async def answer(self, request: web.Request, seen: SeenRequest, reply: Reply) -> web.StreamResponse:
        if reply.status != 200:
            body = {"type": "error", "error": dict(reply.error or {}), "request_id": "req_1"}
            return web.json_response(body, status=reply.status, headers=reply.headers)
        if seen.path == "/v1/messages/count_tokens":
            return web.json_response({"input_tokens": 42})
        assert seen.path == "/v1/messages", seen.path
        if not seen.body.get("stream"):
            return web.json_response(reply.answer, headers=reply.headers)
        return await self.send(request, reply, reply.frames or stream(reply.answer))


def stream(whole: Mapping[str, Any]) -> list[bytes]:
    """The frames of a message; each block's `citations` and the like are left out."""
    return [frame(event) for event in events(whole)]


def events(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    usage = whole["usage"]
    head = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": head | {"usage": {**usage, "output_tokens": 1}}}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        start, deltas = _streamed(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    totals = {name: usage[name] for name in ("output_tokens", "output_tokens_details") if name in usage}
    yield {"type": "message_delta", "delta": stop, "usage": totals}
    yield {"type": "message_stop"}


def error_frame(kind: str, words: str = "scripted") -> bytes:
    return frame({"type": "error", "error": {"type": kind, "message": words}})


def frame(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _streamed(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and the deltas that fill it."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": p} for p in _pieces(block["text"])]
    if block["type"] == "thinking":
        grown = [{"type": "thinking_delta", "thinking": p} for p in _pieces(block["thinking"])]
        start = {"type": "thinking", "thinking": "", "signature": ""}
        return start, [*grown, {"type": "signature_delta", "signature": block["signature"]}]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"]) if block["input"] else ""
        pieces = ["", *_pieces(arguments)]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": p} for p in pieces]
    return dict(block), []


def _pieces(whole: str) -> list[str]:
    return [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]
