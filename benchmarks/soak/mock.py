"""A mock upstream that speaks OpenAI chat completions: the last message says in brackets how it behaves.

    python -m benchmarks.soak.mock PORT

[say] answers, [tools] calls two tools, [long] streams for seconds, [fail500] [fail429] [refuse400] fail,
[cut] ends a stream or an answer in the middle, [once] fails the first time it is asked this very thing.
`GET /stats` counts requests begun, answered, failed and given up by who asked.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

MARKER = re.compile(r"\[(say|tools|long|fail500|fail429|refuse400|cut|once)\]")
WORDS = [f" word{n}" for n in range(40)]
TEXT = "".join(WORDS)
DELAY_S = 0.02
PACE_S = 0.005
ARGUMENTS = json.dumps({"city": "Bergen", "days": 3})
TOOLS = [
    {"id": f"call_{n}", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    for n in range(2)
]
USAGE = {"prompt_tokens": 50, "completion_tokens": 40, "total_tokens": 90}
FAILURES = {
    "fail500": (500, "server_error", "internal"),
    "fail429": (429, "rate_limit_error", "rate_limit_exceeded"),
    "refuse400": (400, "invalid_request_error", "bad_value"),
}


class Mock:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._failed_once: set[str] = set()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.counts["begun"] += 1
        try:
            response = await self._answer(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.counts["given_up"] += 1
            raise
        self.counts["failed" if response.status >= 400 else "answered"] += 1
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = _asked(body)
        found = MARKER.search(asked)
        kind = found.group(1) if found else "say"
        await asyncio.sleep(DELAY_S)
        if kind == "once" and asked not in self._failed_once:
            self._failed_once.add(asked)
            kind = "fail500"
        else:
            self._failed_once.discard(asked)
        if kind in FAILURES:
            status, type_, code = FAILURES[kind]
            return web.json_response(
                {"error": {"message": "mock", "type": type_, "code": code}}, status=status
            )
        if body.get("stream"):
            return await self._stream(request, body, kind)
        if kind == "cut":
            return await _cut(request)
        return web.json_response(_whole(body["model"], kind))

    async def _stream(self, request: web.Request, body: dict[str, Any], kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        sent = 0
        async for event in _events(body["model"], kind, usage):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            sent += 1
            if kind == "cut" and sent == 5:
                assert request.transport is not None
                request.transport.abort()
                return response
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts)


def _asked(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def _whole(model: str, kind: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    if kind == "tools":
        message = {"role": "assistant", "content": None, "tool_calls": TOOLS}
    reason = "tool_calls" if kind == "tools" else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


async def _events(model: str, kind: str, usage: bool) -> AsyncIterator[dict[str, Any]]:
    def event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": [choice],
        }

    yield event({"role": "assistant", "content": ""})
    if kind == "tools":
        for n, tool in enumerate(TOOLS):
            function = {"name": "weather", "arguments": ""}
            yield event(
                {"tool_calls": [{"index": n, "id": tool["id"], "type": "function", "function": function}]}
            )
            for at in range(0, len(ARGUMENTS), 8):
                piece = {"arguments": ARGUMENTS[at : at + 8]}
                yield event({"tool_calls": [{"index": n, "function": piece}]})
    else:
        for word in WORDS * (10 if kind == "long" else 1):
            yield event({"content": word})
            await asyncio.sleep(PACE_S)
    yield event({}, "tool_calls" if kind == "tools" else "stop")
    if usage:
        yield {**event({}), "choices": [], "usage": USAGE}


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "5000"})
    await response.prepare(request)
    await response.write(b'{"id": "c", "object": "chat.completion", "choi')
    assert request.transport is not None
    request.transport.abort()
    return response


def main(port: int) -> None:
    mock = Mock()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", mock.chat)
    app.router.add_get("/stats", mock.stats)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
