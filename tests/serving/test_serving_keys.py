"""What a key may: its names, its limits and its budgets, asked for in earnest or as a dry run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
from serving_asking import NOTHING, made
from serving_plane import Plane, api_key

from mainstay.govern.types import Budget, Limits
from mainstay.serving import ask
from mainstay.serving.dry_run import dry_run
from mainstay.serving.errors import (
    ModelNotAllowed,
    RequestExceedsBudget,
)


async def test_a_dry_run_holds_counts_and_spends_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=1, concurrent_requests=1, budgets=(Budget(10**9, "month"),))
    key = api_key("ms-dry", limits=limits)
    plane.knows(key)
    plane.model.says("fine")

    reports = [await dry_run(made(key), plane.deps) for _ in range(3)]
    await ask(made(key), plane.deps)
    refused = await dry_run(made(key), plane.deps)

    assert [report["refusal"] for report in reports] == [None] * 3
    assert refused["refusal"]["code"] == "rate_limit_exceeded"
    assert len(plane.sink.traces) == 1


async def test_a_dry_run_of_a_name_that_is_not_the_keys_is_refused(plane: Plane) -> None:
    key = api_key("ms-narrow", models=("acme/small",))
    plane.knows(key)

    with pytest.raises(ModelNotAllowed):
        await dry_run(made(key, "bot"), plane.deps)


async def test_a_refused_request_counts_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=2, concurrent_requests=5, budgets=(Budget(1000, "month"),))
    key = api_key("ms-refused", limits=limits)
    plane.knows(key)
    for _ in range(5):
        with pytest.raises(RequestExceedsBudget):
            await ask(made(key), plane.deps)

    hold = await plane.deps.limiter.reserve(
        plane.deps.snapshots.current.scopes_of(key, None), NOTHING
    )  # fmt: skip

    assert hold.rate is not None
    assert hold.rate.remaining == 1
    plane.deps.limiter.settle(hold, 0, 0)


async def test_a_key_revoked_while_its_body_arrives_is_refused(plane: Plane) -> None:
    key = api_key("ms-late")
    plane.knows(key)
    plane.model.says("fine")
    gateway = plane.gateway()
    body = orjson.dumps({"model": "acme/small", "messages": [{"role": "user", "content": "hi"}]})
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        plane.knows(replace(key, revoked_at_us=1))
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer ms-late")],
    }
    await gateway(scope, receive, send)

    assert sent[0]["status"] == 401
    assert plane.model.calls == []


@pytest.mark.parametrize("headers", [{"authorization": "Bearer ms-narrow"}, {"x-api-key": "ms-narrow"}])
async def test_a_keys_names_hold_on_every_path_by_either_header(
    serve: Any, plane: Plane, headers: dict[str, str]
) -> None:
    plane.knows(api_key("ms-narrow", models=("other",)))
    url = (await serve(plane.gateway())).removesuffix("/v1")
    messages = [{"role": "user", "content": "hi"}]
    chat = {"model": "acme/small", "messages": messages}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/chat/completions?dry_run=cost", chat),
        ("/v1/chat/completions", {**chat, "model": "bot"}),
        ("/v1/chat/completions", {**chat, "model": "bot@r1"}),
        ("/v1/completions", {"model": "acme/small", "prompt": "hi"}),
        ("/v1/messages", {**chat, "max_tokens": 5}),
        ("/v1/messages/count_tokens", chat),
        ("/v1/responses", {"model": "acme/small", "input": "hi"}),
        ("/v1/responses/input_tokens", {"model": "acme/small", "input": "hi"}),
        ("/v1/embeddings", {"model": "acme/small", "input": "hi"}),
    ]

    async with aiohttp.ClientSession(url, headers=headers) as client:
        statuses = [await _status(client.post(path, json=body)) for path, body in asked]
        async with client.get("/v1/models") as reply:
            listed = (await reply.json())["data"]
        one = await _status(client.get("/v1/models/acme/small"))

    assert statuses == [403] * len(asked)
    assert (listed, one) == ([], 404)


async def _status(request: Any) -> int:
    async with request as reply:
        await reply.read()
        return int(reply.status)
