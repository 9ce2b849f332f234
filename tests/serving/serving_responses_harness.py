"""A small ASGI application that answers /v1/responses with scripted deltas, and what its tests share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from mainstay.core.ids import new_id, new_trace_id
from mainstay.models.collect import Collector
from mainstay.models.errors import ProviderStreamBroken
from mainstay.models.types import Delta, ToolCallDelta, Usage
from mainstay.serving.errors import reply_to
from mainstay.serving.http import parse_json_object, read_body
from mainstay.serving.responses import ResponsesService
from mainstay.serving.surfaces.responses import ResponsesSurface
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Final, Started

USAGE = Usage(
    input_tokens=12, output_tokens=7, cached_input_tokens=4, reasoning_tokens=3, cache_write_tokens=2
)
IDS = Ids("req_0193b2d0c0de7000a111222233334444", "4bf92f3577b34da6a3ce929d0e0e4736", 1_790_000_000)
STARTED = Started(IDS.trace_id, "snap_1", "m", "p", None, "bypass")


def final_of(deltas: Sequence[Delta], trace_id: str = IDS.trace_id) -> Final:
    collector = Collector()
    for delta in deltas:
        collector.take(delta)
    return Final(
        choices=collector.choices(),
        usage=collector.usage or USAGE,
        cost_nusd=1500,
        latency_ms=2500.0,
        trace_id=trace_id,
        answered_by="m",
        cache="bypass",
    )


def words(*texts: str, finish: Any = "stop") -> list[Delta]:
    return [*(Delta(text=text) for text in texts), Delta(finish_reason=finish, usage=USAGE)]


def tool_call(name: str, *arguments: str, call_id: str = "call_a", index: int = 0) -> list[Delta]:
    first = Delta(tool_calls=(ToolCallDelta(index, call_id, name),))
    return [first, *(Delta(tool_calls=(ToolCallDelta(index, arguments=a),)) for a in arguments)]


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream; checks frames, that each is named as its data, and that they are numbered."""
    events = []
    for frame in stream.decode().split("\n\n"):
        if not frame or frame.startswith(":") or frame == "data: [DONE]":
            continue
        match = re.fullmatch(r"event: (\S+)\ndata: (.*)", frame)
        assert match is not None, frame
        event = orjson.loads(match[2])
        assert event["type"] == match[1]
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


class ScriptedApp:
    """Answers each request with the next script; an exception in a script is raised at its place."""

    def __init__(self, service: ResponsesService, scripts: Sequence[Sequence[Delta | Exception]]) -> None:
        self.service = service
        self.surface = ResponsesSurface()
        self.requests: list[ChatRequest] = []
        self._scripts = list(scripts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        trace_id = new_trace_id()
        try:
            await self._route(scope, receive, send, Ids(new_id("req"), trace_id, 1_790_000_000))
        except Exception as error:
            reply = reply_to(error, trace_id)
            await _send(
                send, reply.status, orjson.dumps(self.surface.error_body(reply)), headers=reply.headers
            )

    async def _route(self, scope: Any, receive: Any, send: Any, ids: Ids) -> None:
        owner = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
        path, method, query = scope["path"], scope["method"], scope["query_string"].decode()
        _, _, _, response_id, action = f"{path}//".split("/")[:5]
        service = self.service
        if method == "POST" and not response_id:
            body = parse_json_object(await read_body(receive, 2**20))
            await self._create(body, owner, send, ids)
        elif method == "DELETE":
            await _send(send, 200, orjson.dumps(await service.delete(response_id, owner)))
        elif action == "input_items":
            await _send(send, 200, orjson.dumps(await service.input_items(response_id, owner, query)))
        elif action == "cancel":
            await service.cancel(response_id, owner)
        else:
            await _send(send, 200, orjson.dumps(await service.get(response_id, owner, query)))

    async def _create(self, body: dict[str, Any], owner: str, send: Any, ids: Ids) -> None:
        request = await self.service.prepare(body, owner)
        self.requests.append(request)
        script = self._scripts.pop(0)
        final = final_of([delta for delta in script if isinstance(delta, Delta)], ids.trace_id)
        if not request.stream:
            await _send(send, 200, await self.service.whole(final, request, ids, owner))
            return
        renderer = self.surface.stream(request, ids)
        await _start(send, 200, {"content-type": "text/event-stream"})
        await _piece(send, renderer.start(STARTED))
        for delta in script:
            if isinstance(delta, Exception):
                await _piece(send, renderer.error(reply_to(delta)), last=True)
                return
            await _piece(send, renderer.ping + renderer.delta(delta))
        await _piece(send, await self.service.end(renderer, final, request, owner), last=True)


def broken() -> ProviderStreamBroken:
    return ProviderStreamBroken("The answer stopped half-way.", provider="p")


async def _send(send: Any, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    await _start(send, status, {"content-type": "application/json", **(headers or {})})
    await _piece(send, body, last=True)


async def _start(send: Any, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _piece(send: Any, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})
