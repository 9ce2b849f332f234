"""A local HTTP server that speaks Ollama's native API by script: answers, errors, silence, cut streams.

Follows Ollama's API documentation, `/api/chat`, `/api/embed`, `/api/version`, "Streaming", "Thinking", "Tool calling",
"Usage" and "Errors", as of 2026-11. An answer is given whole; asked for a stream, the server sends it as lines, texts
in small pieces, each tool call whole, and the counts with the last one.

    async with OllamaServer() as upstream:
        upstream.plays(Reply(answer("Hi")), Reply(status=404, error={"error": "model 'm' not found"}))

The `error` of a reply is the whole body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from aiohttp import web

from support.anthropic_server import PIECE, Reply, ScriptedServer, SeenRequest

WHEN = "2026-11-24T12:00:00.000000Z"
USAGE = {
    "total_duration": 5_000_000,
    "load_duration": 1_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 1_000_000,
    "eval_count": 9,
    "eval_duration": 2_000_000,
}
VECTOR = [0.5, -0.25, 1.0]


def answer(
    content: str = "", *, done_reason: str = "stop", logprobs: Any = None, **message: Any
) -> dict[str, Any]:
    """`message`: `thinking`, `tool_calls`."""
    return {
        "model": "qwen3:4b",
        "created_at": WHEN,
        "message": {"role": "assistant", "content": content, **message},
        **({} if logprobs is None else {"logprobs": logprobs}),
        "done": True,
        "done_reason": done_reason,
        **USAGE,
    }


def tool_call(name: str, arguments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


class OllamaServer(ScriptedServer):
    content_type = "application/x-ndjson"

    def __init__(self) -> None:
        super().__init__()
        self.well = True

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/{path:.*}", self._handle)
        app.router.add_get("/api/version", self._version)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.40.12"}, status=200 if self.well else 500)

    async def answer(self, request: web.Request, seen: SeenRequest, reply: Reply) -> web.StreamResponse:
        if reply.status != 200:
            body = None if reply.error is None else dict(reply.error)
            return web.json_response(body, status=reply.status, headers=reply.headers)
        if seen.path == "/api/embed":
            vectors = [VECTOR for _ in seen.body["input"]]
            told = {"model": seen.body["model"], "embeddings": vectors, "prompt_eval_count": 7}
            return web.json_response(reply.answer if "embeddings" in reply.answer else told)
        assert seen.path == "/api/chat", seen.path
        if not seen.body.get("stream", True):
            return web.json_response(reply.answer, headers=reply.headers)
        return await self.send(request, reply, reply.frames or stream(reply.answer))


def stream(whole: Mapping[str, Any]) -> list[bytes]:
    """The lines of an answer."""
    return [line(one) for one in lines(whole)]


def line(one: Mapping[str, Any]) -> bytes:
    return json.dumps(one).encode() + b"\n"


def lines(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    message = whole["message"]
    for name in ("thinking", "content"):
        text = message.get(name, "")
        for at in range(0, len(text), PIECE):
            said = {"content": "", name: text[at : at + PIECE]}
            with_logprobs = name == "content" and at == 0 and "logprobs" in whole
            yield _line(whole, said) | ({"logprobs": whole["logprobs"]} if with_logprobs else {})
    for call in message.get("tool_calls", ()):
        yield _line(whole, {"content": "", "tool_calls": [call]})
    last = {name: value for name, value in whole.items() if name != "logprobs"}
    yield {**last, "message": {"role": "assistant", "content": ""}}


def _line(whole: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": whole["model"],
        "created_at": WHEN,
        "message": {"role": "assistant", **said},
        "done": False,
    }
