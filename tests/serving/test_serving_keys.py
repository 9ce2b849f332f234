"""What a key may: its names, its limits and its budgets, asked for in earnest or as a dry run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from serving_asking import asked, made, requests_left
from serving_door import ASK, client
from serving_plane import CHECK_IN, Plane, api_key

from mainstay.govern.types import Budget, Identity, Limits
from mainstay.models.types import Usage
from mainstay.serving import ask, replay
from mainstay.serving.dry_run import dry_run
from mainstay.serving.errors import ModelNotAllowed, RequestExceedsBudget


async def test_a_dry_run_holds_counts_and_spends_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=1, concurrent_requests=1, budgets=(Budget(10**9, "month"),))
    key = plane.key(limits=limits)
    plane.model.says("fine")

    reports = [await dry_run(made(key), plane.deps) for _ in range(3)]
    await ask(made(key), plane.deps)
    refused = await dry_run(made(key), plane.deps)

    assert [report["refusal"] for report in reports] == [None] * 3
    assert refused["refusal"]["code"] == "rate_limit_exceeded"
    assert len(plane.sink.traces) == 1


async def test_a_dry_run_of_a_name_that_is_not_the_keys_is_refused(plane: Plane) -> None:
    key = plane.key(models=("acme/small",))

    with pytest.raises(ModelNotAllowed):
        await dry_run(made(key, "bot"), plane.deps)


async def test_a_refused_request_counts_nothing(plane: Plane) -> None:
    limits = Limits(requests_per_minute=2, concurrent_requests=5, budgets=(Budget(1000, "month"),))
    key = plane.key(limits=limits)
    for _ in range(5):
        with pytest.raises(RequestExceedsBudget):
            await ask(made(key), plane.deps)

    assert await requests_left(plane, key) == 1


async def test_a_key_revoked_while_its_body_arrives_is_refused(plane: Plane) -> None:
    key = plane.key()
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
        "headers": [(b"authorization", b"Bearer ms-good")],
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


async def test_a_key_keeps_its_models_and_budget_when_it_replays(plane: Plane) -> None:
    key = plane.key(models=("bot",), budget_nusd=10_000_000)
    caller = Identity(key.id, key.name, "key", key.role)
    plane.model.says(CHECK_IN)
    await asked(plane)
    refused = await replay(plane.sink.traces[0], plane.deps, caller, on="acme/small")
    assert (refused.again.error or "").startswith("model_not_allowed")
    assert (await replay(plane.sink.traces[0], plane.deps, caller, on="bot")).again.error is None
    state = await plane.budget(key)
    assert state.spent_nusd == 3000


@pytest.mark.parametrize(
    ("model", "token", "status", "code"),
    [
        ("acme/small", "ms-bad", 401, "invalid_api_key"),
        ("acme/smal", "ms-good", 404, "model_not_found"),
        ("acme/small", "ms-narrow", 403, "model_not_allowed"),
    ],
)
async def test_who_may_not_or_asks_for_nothing_known_is_told_so(
    serve: Any, plane: Plane, model: str, token: str, status: int, code: str
) -> None:
    plane.knows(api_key(), api_key("ms-narrow", models=("bot",)))
    async with client(serve, plane, token) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model=model, messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.headers["x-request-id"].startswith("req_")


async def test_a_spent_budget_is_refused_and_an_unknown_price_is_not_free(serve: Any, plane: Plane) -> None:
    plane.key(budget_nusd=14_000)
    plane.model.says("Hello.", usage=Usage(100, 10))
    async with client(serve, plane) as sdk:
        await sdk.chat.completions.create(model="acme/small", messages=ASK)
        with pytest.raises(openai.RateLimitError) as spent:
            await sdk.chat.completions.create(model="acme/small", messages=ASK)
        with pytest.raises(openai.BadRequestError) as unpriced:
            await sdk.chat.completions.create(model="acme/unpriced", messages=ASK)
        with pytest.raises(openai.BadRequestError) as huge:
            await sdk.chat.completions.create(
                model="acme/small", messages=[{"role": "user", "content": "x" * 1000}]
            )
    assert (spent.value.code, spent.value.type) == ("insufficient_quota", "insufficient_quota")
    assert unpriced.value.code == "price_unknown"
    assert huge.value.code == "request_exceeds_budget"


async def test_requests_per_minute_are_limited_with_headers(serve: Any, plane: Plane) -> None:
    plane.key(requests_per_minute=2)
    plane.model.says("Hello.")
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model="acme/small", messages=ASK)
        await sdk.chat.completions.create(model="acme/small", messages=ASK)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.chat.completions.create(model="acme/small", messages=ASK)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert caught.value.response.headers["retry-after"] == "30"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "2"


async def test_models_lists_what_the_key_may_use(serve: Any, plane: Plane) -> None:
    plane.key(models=("bot", "acme/*"))
    async with client(serve, plane) as sdk:
        names = [m.id async for m in sdk.models.list()]
        one = await sdk.models.retrieve("bot@production")
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("local/extractive")
    assert names == ["bot", "bot@production", "bot@r1", "acme/small", "acme/unpriced"]
    assert one.mainstay["environment"] == "production"  # type: ignore[attr-defined]
