"""The data plane's door: a bare ASGI application that speaks OpenAI's API.

    POST /v1/chat/completions    apps and models
    POST /v1/embeddings
    GET  /v1/models, /v1/models/{id}

A client that leaves cancels the work behind its request at once, streaming or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import orjson

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.core.errors import MainstayError, NotFound, Unauthenticated
from mainstay.core.ids import new_id, new_trace_id
from mainstay.core.money import usd_text
from mainstay.govern import require
from mainstay.govern.types import ApiKey, Identity
from mainstay.models.types import Delta
from mainstay.observe import TraceBuilder
from mainstay.retrieval.types import Embedder
from mainstay.serving.deps import Deps
from mainstay.serving.embeddings import embed, names_of
from mainstay.serving.errors import ModelNotFound, RateLimited, reply_to
from mainstay.serving.http import (
    PING_AFTER_S,
    ClientLeft,
    EventWriter,
    Receive,
    Scope,
    Send,
    header,
    parse_json_object,
    read_body,
    run_while_connected,
    send_json,
)
from mainstay.serving.pipeline import answer
from mainstay.serving.rates import rate_headers
from mainstay.serving.requests import read_chat_request
from mainstay.serving.snapshot import may_use
from mainstay.serving.types import CacheWish, Call, Final, RateState, Started
from mainstay.serving.wire import ChunkRenderer, completion_body

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


class MethodNotAllowed(MainstayError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class _Exchange:
    """One HTTP request: its ids, and the headers every answer to it carries."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.request_id = new_id("req")
        parent = _TRACEPARENT.fullmatch(header(scope, "traceparent") or "")
        self.trace_id = parent.group(1) if parent else new_trace_id()
        self.parent_id = parent.group(2) if parent else None

    @property
    def path(self) -> str:
        path: str = self.scope["path"]
        return path.removeprefix(self.scope.get("root_path", "")).rstrip("/")

    def headers(self, started: Started | None = None) -> dict[str, str]:
        headers = {"x-request-id": self.request_id, "x-mainstay-trace-id": self.trace_id}
        if started is not None:
            headers["x-mainstay-model"] = started.model
            headers["x-mainstay-provider"] = started.provider
            headers["x-mainstay-cache"] = started.cache
            headers["x-mainstay-snapshot"] = started.snapshot_id
            if started.release is not None:
                headers["x-mainstay-release"] = started.release
            headers |= _rate_headers(started.rate)
        return headers


class Gateway:
    """`hash_token` is govern's keyed hash; `embedder` None: no embeddings are served."""

    def __init__(
        self,
        deps: Deps,
        hash_token: Callable[[str], str],
        *,
        embedder: Embedder | None = None,
        body_limit_bytes: int = 20 * 2**20,
        ping_after_s: float = PING_AFTER_S,
        clock: Clock = now_us,
    ) -> None:
        self._deps = deps
        self._hash_token = hash_token
        self._embedder = embedder
        self._body_limit_bytes = body_limit_bytes
        self._ping_after_s = ping_after_s
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the gateway speaks HTTP, not {scope['type']}")
        exchange = _Exchange(scope)
        try:
            await self._route(exchange, receive, send)
        except ClientLeft:
            return
        except (
            Exception
        ) as error:  # the boundary: every failure becomes a reply; reply_to logs the unforeseen
            await _send_error(send, exchange, error)

    async def _route(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        path, method = exchange.path, exchange.scope["method"]
        key, identity = self._identify(exchange.scope)
        if path in ("/v1/chat/completions", "/v1/embeddings"):
            if method != "POST":
                raise MethodNotAllowed(f"{path} takes POST.")
            body = parse_json_object(await read_body(receive, self._body_limit_bytes))
            if path == "/v1/embeddings":
                await run_while_connected(receive, self._embed(exchange, body, key, send))
            else:
                call = self._call(exchange, body, key, identity)
                await run_while_connected(receive, self._chat(exchange, call, send))
            return
        if method != "GET":
            raise NotFound(f"There is no {method} {path}.")
        await send_json(send, 200, self._models(path, key), exchange.headers())

    def _identify(self, scope: Scope) -> tuple[ApiKey, Identity]:
        """Step 1: the caller, from the snapshot in memory."""
        scheme, _, token = (header(scope, "authorization") or "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else header(scope, "x-api-key") or ""
        if not token:
            raise Unauthenticated("No API key was sent.", fix="Send it as `Authorization: Bearer ms-…`.")
        key, identity = self._deps.snapshots.current.identify(self._hash_token(token), self._clock())
        require(identity, "call")
        return key, identity

    def _call(self, exchange: _Exchange, body: dict[str, Any], key: ApiKey, identity: Identity) -> Call:
        return Call(
            request=read_chat_request(body),
            identity=identity,
            key=key,
            trace_id=exchange.trace_id,
            parent_id=exchange.parent_id,
            cache=_cache_wish(exchange.scope),
        )

    async def _chat(self, exchange: _Exchange, call: Call, send: Send) -> None:
        if call.request.stream:
            await self._stream(exchange, call, send)
            return
        try:
            await self._complete(exchange, call, send)
        except Exception as error:  # boundary, as in __call__
            await _send_error(send, exchange, error)

    async def _complete(self, exchange: _Exchange, call: Call, send: Send) -> None:
        headers = exchange.headers()
        async with aclosing(answer(call, self._deps)) as events:
            async for event in events:
                if isinstance(event, Started):
                    headers = exchange.headers(event)
                elif isinstance(event, Final):
                    if event.cost_nusd is not None:
                        headers["x-mainstay-cost-usd"] = usd_text(event.cost_nusd)
                    body = completion_body(event, call.request.model, self._clock() // US_PER_S)
                    await send_json(send, 200, body, headers)

    async def _stream(self, exchange: _Exchange, call: Call, send: Send) -> None:
        headers = exchange.headers()
        writer = EventWriter(send, lambda: headers, self._ping_after_s)
        chunks = ChunkRenderer(
            exchange.trace_id, call.request.model, self._clock() // US_PER_S, call.request.include_usage
        )
        try:
            async with writer.keep_alive(), aclosing(answer(call, self._deps)) as events:
                async for event in events:
                    if isinstance(event, Started):
                        headers = exchange.headers(event)
                    elif isinstance(event, Delta):
                        await writer.write(orjson.dumps(chunks.text(event)))
                    else:
                        for chunk in chunks.end(event):
                            await writer.write(orjson.dumps(chunk))
                await writer.write(b"[DONE]")
        except Exception as error:  # boundary: after the first event an error is told in the stream
            if not writer.started:
                await _send_error(send, exchange, error)
                return
            # No [DONE] follows: a cut answer must not look complete.
            await writer.write(orjson.dumps(reply_to(error, exchange.trace_id).body))
        await writer.close()

    async def _embed(self, exchange: _Exchange, body: dict[str, Any], key: ApiKey, send: Send) -> None:
        try:
            rate = self._deps.rates.take(key)
            trace = TraceBuilder(
                f"embeddings {body.get('model')}", trace_id=exchange.trace_id, parent_id=exchange.parent_id
            )
            reply = await embed(body, self._embedder, key, trace, self._deps.sink)
            await send_json(send, 200, reply, exchange.headers() | _rate_headers(rate))
        except Exception as error:  # boundary, as in __call__
            await _send_error(send, exchange, error)

    def _models(self, path: str, key: ApiKey) -> dict[str, Any]:
        models = {body["id"]: body for body in self._model_bodies() if may_use(key, body["id"])}
        if path == "/v1/models":
            return {"object": "list", "data": list(models.values())}
        name = path.removeprefix("/v1/models/")
        if name == path:
            raise NotFound(f"There is no GET {path or '/'}.")
        if name not in models:
            raise ModelNotFound(name, list(models))
        return models[name]

    def _model_bodies(self) -> list[dict[str, Any]]:
        snapshot = self._deps.snapshots.current
        bodies = [
            {
                "id": name,
                "object": "model",
                "created": runnable.release.created_at_us // US_PER_S,
                "owned_by": "mainstay",
                "mainstay": {
                    "kind": "app",
                    "app": runnable.release.app,
                    "environment": runnable.environment,
                    "release": runnable.release.number,
                    "release_digest": runnable.release.digest,
                    "model": runnable.model,
                },
            }
            for name, runnable in sorted(snapshot.runnables.items())
        ]
        embedders = names_of(self._embedder)[:1] if self._embedder is not None else ()
        return bodies + [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": _owner(name),
                "mainstay": {"kind": kind},
            }
            for kind, names in (("model", snapshot.models), ("embedder", embedders))
            for name in names
        ]


def _owner(name: str) -> str:
    owner, slash, _ = name.partition("/")
    return owner if slash else "mainstay"


def _cache_wish(scope: Scope) -> CacheWish:
    """`x-mainstay-cache: use` or `skip`; `cache-control: no-cache` or `no-store` skips too."""
    control = (header(scope, "cache-control") or "").lower()
    wish = (header(scope, "x-mainstay-cache") or "").lower()
    if wish == "skip" or "no-cache" in control or "no-store" in control:
        return "skip"
    return "use" if wish == "use" else "release"


def _rate_headers(rate: RateState | None) -> dict[str, str]:
    return {} if rate is None else rate_headers(rate)


async def _send_error(send: Send, exchange: _Exchange, error: Exception) -> None:
    reply = reply_to(error, exchange.trace_id)
    limited = _rate_headers(error.rate) if isinstance(error, RateLimited) else {}
    await send_json(send, reply.status, reply.body, exchange.headers() | reply.headers | limited)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop here: whoever built the parts owns them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
