"""The data plane's door: a bare ASGI application that speaks OpenAI's and Anthropic's APIs.

    POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages    apps and models
    POST /v1/messages/count_tokens, /v1/responses/input_tokens
    GET, DELETE /v1/responses/{id}; GET /v1/responses/{id}/input_items
    POST /v1/embeddings
    GET  /v1/models, /v1/models/{id}
    GET  /v1/openapi.json

A client that leaves cancels the work behind its request within 100 ms, streaming or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from mainstay.core.clock import Clock, now_us
from mainstay.core.errors import MainstayError, NotFound, Unauthenticated
from mainstay.govern import require
from mainstay.govern.types import ApiKey, Identity
from mainstay.models.types import ChatCall, Delta
from mainstay.retrieval.types import Embedder
from mainstay.serving.connected import Connections
from mainstay.serving.deps import Deps
from mainstay.serving.dry_run import dry_run
from mainstay.serving.embeddings import embed
from mainstay.serving.errors import ShuttingDown, reply_to
from mainstay.serving.exchange import Exchange
from mainstay.serving.http import (
    PING_AFTER_S,
    STALLED_AFTER_S,
    ClientLeft,
    EventWriter,
    Receive,
    Scope,
    Send,
    parse_json_object,
    read_body,
    send_bytes,
    send_json,
)
from mainstay.serving.listing import listed_model, listed_models
from mainstay.serving.openapi import openapi_bytes
from mainstay.serving.pipeline import answer
from mainstay.serving.responses import ResponsesService
from mainstay.serving.shutdown import Shutdown
from mainstay.serving.surfaces import SURFACES
from mainstay.serving.surfaces.chat import ChatSurface
from mainstay.serving.surfaces.responses import ResponsesStream
from mainstay.serving.surfaces.types import StreamRenderer, Surface
from mainstay.serving.token_count import count_message_tokens, count_response_tokens
from mainstay.serving.types import Call, ChatRequest, Final, Started

_PATHS: Mapping[str, Surface] = {
    "/v1/chat/completions": SURFACES["chat"],
    "/v1/completions": SURFACES["completions"],
    "/v1/responses": SURFACES["responses"],
    "/v1/messages": SURFACES["messages"],
}
_OPENAI = ChatSurface()


class MethodNotAllowed(MainstayError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class Gateway:
    """`hash_token` is govern's keyed hash; `embedder` None: no local embeddings are served.

    `responses` keeps what `/v1/responses` was asked to store; None: nothing can be stored or continued.
    """

    def __init__(
        self,
        deps: Deps,
        hash_token: Callable[[str], str],
        *,
        embedder: Embedder | None = None,
        responses: ResponsesService | None = None,
        body_limit_bytes: int = 20 * 2**20,
        ping_after_s: float = PING_AFTER_S,
        stalled_after_s: float = STALLED_AFTER_S,
        clock: Clock = now_us,
    ) -> None:
        self._deps = deps
        self._hash_token = hash_token
        self._embedder = embedder
        self._responses = responses
        self._body_limit_bytes = body_limit_bytes
        self._ping_after_s = ping_after_s
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._connections = Connections()
        self.shutdown = Shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the gateway speaks HTTP, not {scope['type']}")
        exchange = Exchange(scope, self._clock)
        surface = _PATHS.get(exchange.path)
        try:
            with self.shutdown.request() as task:
                if surface is not None:
                    await self._ask(exchange, surface, receive, send, task)
                else:
                    await self._other(exchange, receive, send, task)
        except ClientLeft:
            return
        except (
            Exception
        ) as error:  # the boundary: every failure becomes a reply; reply_to logs the unforeseen
            await self._send_error(exchange, surface or _surface_of_errors(exchange), send, error)

    async def _send_error(self, exchange: Exchange, surface: Surface, send: Send, error: Exception) -> None:
        reply = reply_to(error, exchange.trace_id, exchange.request_id)
        headers = exchange.error_headers(reply, error)
        if isinstance(error, ShuttingDown):
            headers.append((b"connection", b"close"))
        await send_json(send, reply.status, surface.error_body(reply), headers)

    async def _ask(
        self, exchange: Exchange, surface: Surface, receive: Receive, send: Send, task: asyncio.Task[object]
    ) -> None:
        snapshot = self._deps.snapshots.current
        key, identity = self._identify(exchange)
        if exchange.scope["method"] != "POST":
            raise MethodNotAllowed(f"{exchange.path} takes POST.")
        body = parse_json_object(await read_body(receive, self._body_limit_bytes))
        if self._deps.snapshots.current is not snapshot:  # the key may be revoked by now
            key, identity = self._identify(exchange)
        with self._connections.watch(receive, task) as leave:
            request = await self._read(surface, body, identity)
            call = _call(exchange, request, key, identity)
            if exchange.query("dry_run") is not None:
                await send_json(send, 200, await dry_run(call, self._deps), exchange.headers())
            elif request.stream:
                await self._stream(exchange, surface, call, send, leave)
            else:
                await self._complete(exchange, surface, call, send)

    def _identify(self, exchange: Exchange) -> tuple[ApiKey, Identity]:
        """Step 1: the caller, from the snapshot in memory."""
        scheme, _, token = (exchange.header(b"authorization") or "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else exchange.header(b"x-api-key") or ""
        if not token:
            raise Unauthenticated("No API key was sent.", fix="Send it as `Authorization: Bearer ms-…`.")
        key, identity = self._deps.snapshots.current.identify(self._hash_token(token), self._clock())
        require(identity, "call")
        return key, identity

    async def _read(self, surface: Surface, body: Mapping[str, Any], identity: Identity) -> ChatRequest:
        if surface.name == "responses" and self._responses is not None:
            return await self._responses.prepare(body, identity.id)
        return surface.read(body)

    async def _complete(self, exchange: Exchange, surface: Surface, call: Call, send: Send) -> None:
        events = answer(call, self._deps)
        try:
            async for event in events:
                if isinstance(event, Started):
                    exchange.started = event
                elif isinstance(event, Final):
                    body = await self._rendered(exchange, surface, call, event)
                    await send_bytes(send, 200, body, exchange.headers(event))
        finally:
            await events.aclose()

    async def _stream(
        self,
        exchange: Exchange,
        surface: Surface,
        call: Call,
        send: Send,
        leave: Callable[[], None],
    ) -> None:
        renderer = surface.stream(call.request, exchange.ids)
        writer = EventWriter(
            send,
            exchange.headers,
            renderer.ping,
            ping_after_s=self._ping_after_s,
            stalled_after_s=self._stalled_after_s,
            on_stall=leave,
        )
        head = last = b""
        render, write = renderer.delta, writer.write
        try:
            with self.shutdown.stream():
                async with aclosing(answer(call, self._deps)) as events:
                    async for event in events:
                        if isinstance(event, Delta):
                            frames = head + render(event)
                            head = b""
                            if frames:
                                await write(frames)
                        elif isinstance(event, Started):
                            exchange.started = event
                            head = renderer.start(event)
                        else:
                            last = head + await self._end(renderer, call, event)
                await write(last, more_body=False)
        except Exception as error:  # boundary: after the first event an error is told in the stream
            if not writer.started:
                raise
            # Neither a terminal event nor the end of the body follows, so the server drops the connection: a cut
            # answer must not look complete, not even to a client that knows no error events.
            reply = reply_to(error, exchange.trace_id, exchange.request_id)
            await write(renderer.error(reply))
        finally:
            writer.stop()

    async def _rendered(self, exchange: Exchange, surface: Surface, call: Call, final: Final) -> bytes:
        if surface.name == "responses" and self._responses is not None:
            return await self._responses.whole(final, call.request, exchange.ids, call.identity.id)
        return surface.whole(final, call.request, exchange.ids)

    async def _end(self, renderer: StreamRenderer, call: Call, final: Final) -> bytes:
        if isinstance(renderer, ResponsesStream) and self._responses is not None:
            return await self._responses.end(renderer, final, call.request, call.identity.id)
        return renderer.end(final)

    async def _other(
        self, exchange: Exchange, receive: Receive, send: Send, task: asyncio.Task[object]
    ) -> None:
        """What is no question to an app or model."""
        path, method = exchange.path, exchange.scope["method"]
        if method == "GET" and path == "/v1/openapi.json":  # of no secret, so that tools need no key
            await send_bytes(send, 200, openapi_bytes(), exchange.headers())
            return
        key, identity = self._identify(exchange)
        if path in ("/v1/embeddings", "/v1/messages/count_tokens", "/v1/responses/input_tokens"):
            if method != "POST":
                raise MethodNotAllowed(f"{path} takes POST.")
            body = parse_json_object(await read_body(receive, self._body_limit_bytes))
            with self._connections.watch(receive, task):
                if path == "/v1/embeddings":
                    call = _call(exchange, ChatRequest("", ChatCall("", ())), key, identity)
                    reply = await embed(body, self._embedder, call, self._deps)
                    await send_bytes(send, 200, reply.body, exchange.headers() + reply.headers)
                elif path == "/v1/messages/count_tokens":
                    counted = await count_message_tokens(body, key, self._deps)
                    await send_bytes(send, 200, counted, exchange.headers())
                else:
                    request = await self._read(SURFACES["responses"], body, identity)
                    counted = await count_response_tokens(request, key, self._deps)
                    await send_bytes(send, 200, counted, exchange.headers())
        elif path.startswith("/v1/responses/") and self._responses is not None:
            await self._stored(exchange, identity, send)
        elif method == "GET" and path == "/v1/models":
            await send_json(send, 200, listed_models(self._deps, self._embedder, key), exchange.headers())
        elif method == "GET" and path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            await send_json(
                send, 200, listed_model(self._deps, self._embedder, key, name), exchange.headers()
            )
        else:
            raise NotFound(f"There is no {method} {path}.")

    async def _stored(self, exchange: Exchange, identity: Identity, send: Send) -> None:
        assert self._responses is not None
        response_id, _, rest = exchange.path.removeprefix("/v1/responses/").partition("/")
        method = exchange.scope["method"]
        if rest == "input_items" and method == "GET":
            value = await self._responses.input_items(response_id, identity.id, exchange.query_string)
        elif rest == "cancel" and method == "POST":
            value = await self._responses.cancel(response_id, identity.id)
        elif not rest and method == "GET":
            value = await self._responses.get(response_id, identity.id, exchange.query_string)
        elif not rest and method == "DELETE":
            value = await self._responses.delete(response_id, identity.id)
        else:
            raise NotFound(f"There is no {method} {exchange.path}.")
        await send_bytes(send, 200, orjson.dumps(value), exchange.headers())


def _call(exchange: Exchange, request: ChatRequest, key: ApiKey, identity: Identity) -> Call:
    cache, max_age_s = exchange.cache_wish()
    return Call(
        request,
        identity,
        key,
        exchange.trace_id,
        exchange.parent_id,
        None,
        cache,
        max_age_s,
        exchange.deadline_s(),
        exchange.client_retry(),
    )


def _surface_of_errors(exchange: Exchange) -> Surface:
    """Errors on Anthropic's paths in Anthropic's form."""
    return SURFACES["messages"] if exchange.path.startswith("/v1/messages") else _OPENAI


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop here: whoever built the parts owns them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
