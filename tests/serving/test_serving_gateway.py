"""The gateway as the official OpenAI SDK sees it, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from serving_plane import CHEAP, Plane, Scripted, api_key, runnable

from mainstay.models import ProviderAuthFailed, ProviderError, ProviderRateLimited
from mainstay.models.types import Delta, ResponseFormat, Target, Usage
from mainstay.observe.types import Attr

ASK: list[Any] = [{"role": "user", "content": "When must cars check in?"}]
FACT = "Cars must check in at least 30 minutes before departure."


@asynccontextmanager
async def client(
    serve: Any, plane: Plane, token: str = "ms-good", **options: Any
) -> AsyncIterator[openai.AsyncOpenAI]:
    url = await serve(plane.gateway(**options))
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0) as sdk:
        yield sdk


async def test_a_plain_model_answers_with_usage_cost_and_trace(serve: Any, plane: Plane) -> None:
    plane.model.says("Hel", "lo.", usage=Usage(10, 5))
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="acme/small", messages=ASK, temperature=0.5
        )
    reply = raw.parse()
    assert reply.choices[0].message.content == "Hello."
    assert reply.usage is not None
    assert reply.usage.total_tokens == 15
    assert raw.headers["x-mainstay-cost-usd"] == "0.000003"
    assert raw.headers["x-mainstay-model"] == "acme/small"
    assert raw.headers["x-mainstay-provider"] == "scripted"
    assert raw.headers["x-mainstay-snapshot"] == "snap-1"
    assert reply.mainstay["trace_id"] == raw.headers["x-mainstay-trace-id"]  # type: ignore[attr-defined]
    assert plane.model.calls[0].temperature == 0.5
    span = plane.sink.span("chat small")
    assert span.attributes[Attr.COST_NUSD] == 3000
    assert plane.sink.traces[0][0].attributes[Attr.KEY] == "key_ms-good"


async def test_a_stream_brings_text_the_extension_and_usage_when_asked(serve: Any, plane: Plane) -> None:
    plane.model.says("Hel", "lo.")
    async with client(serve, plane) as sdk:
        stream = await sdk.chat.completions.create(
            model="acme/small", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert texts == ["Hel", "lo."]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].mainstay["cost_nusd"] == 3000  # type: ignore[attr-defined]
    assert chunks[-1].usage is not None
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 5)


async def test_an_app_answers_with_numbered_citations(serve: Any, plane: Plane) -> None:
    plane.model.says(FACT + " [3]", " Elephants", " fly at night.")
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model="bot", messages=ASK)
    reply = raw.parse()
    extension = reply.mainstay  # type: ignore[attr-defined]
    assert reply.choices[0].message.content == f"{FACT} [1]"
    assert raw.headers["x-mainstay-release"] == "bot r1"
    assert extension["citations"][0]["quote"] == FACT
    assert extension["grounding"]["removed"] == ["Elephants fly at night."]
    assert extension["grounding"]["supported_share"] == 0.5
    assert (extension["app"], extension["release"], extension["environment"]) == ("bot", 1, "production")
    steps = ["guard.input", "retrieve", "guard.context", "render", "chat small", "ground"]
    assert [n for n in plane.sink.names() if n in steps] == [
        "guard.input",
        "retrieve",
        "guard.context",
        "render",
        "ground",
        "chat small",
    ]


async def test_an_app_streams_whole_checked_sentences(serve: Any, plane: Plane) -> None:
    plane.model.says(*[f"{word} " for word in FACT.split()], "A near miss must be reported within 24 hours.")
    async with client(serve, plane) as sdk:
        stream = await sdk.chat.completions.create(model="bot", messages=ASK, stream=True)
        texts = [c.choices[0].delta.content async for c in stream if c.choices[0].delta.content]
    assert texts == [f"{FACT} [1]", " A near miss must be reported within 24 hours. [2]"]


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


async def test_an_unknown_name_is_answered_with_the_nearest(serve: Any, plane: Plane) -> None:
    async with client(serve, plane) as sdk:
        with pytest.raises(openai.NotFoundError, match=r"acme/smal") as caught:
            await sdk.chat.completions.create(model="acme/smal", messages=ASK)
    assert caught.value.body["mainstay"]["fix"] == "Did you mean 'acme/small'?"  # type: ignore[index]


async def test_an_upstream_401_is_not_the_callers(serve: Any, plane: Plane) -> None:
    plane.model.plays(ProviderAuthFailed("refused our key", provider="acme", upstream_status=401))
    async with client(serve, plane) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="acme/small", messages=ASK, stream=True)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_credentials_exhausted")


async def test_a_failure_before_the_first_word_is_tried_again(serve: Any, plane: Plane) -> None:
    plane.model.plays(ProviderError("broke", provider="acme", upstream_status=500))
    plane.model.plays(ProviderRateLimited("wait", provider="acme", retry_after_s=1.5))
    plane.model.says("Hello.")
    async with client(serve, plane) as sdk:
        reply = await sdk.chat.completions.create(model="acme/small", messages=ASK)
    assert reply.choices[0].message.content == "Hello."
    assert len(plane.waits_s) == 2
    assert plane.waits_s[1] == pytest.approx(1.5, abs=0.1)
    attempts = [span for span in plane.sink.traces[-1] if span.name == "chat small"]
    assert [span.status for span in attempts] == ["error", "error", "unset"]


async def test_attempts_end_after_three(serve: Any, plane: Plane) -> None:
    plane.model.plays(ProviderError("broke", provider="acme", upstream_status=500))
    async with client(serve, plane) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="acme/small", messages=ASK)
    assert (caught.value.status_code, len(plane.model.calls)) == (502, 3)


async def read_until_cut(response: aiohttp.ClientResponse) -> str:
    """All that comes before the connection is dropped: a failed answer must not end as a whole one does."""
    read: list[bytes] = []

    async def read_all() -> None:
        async for chunk in response.content.iter_any():
            read.append(chunk)

    with pytest.raises(aiohttp.ClientPayloadError):
        await read_all()
    return b"".join(read).decode()


@pytest.mark.parametrize("ending", ["error", "silence"])
async def test_a_stream_cut_midway_ends_with_an_error_and_no_done(
    serve: Any, plane: Plane, ending: str
) -> None:
    plane.knows(api_key(budget_nusd=10**9))
    cut: list[Any] = [ProviderError("broke", provider="acme")] if ending == "error" else []
    plane.model.plays(Delta(text="Hel"), *cut)
    url = await serve(plane.gateway())
    body = {"model": "acme/small", "messages": ASK, "stream": True}
    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer ms-good"}) as http,
        http.post(f"{url}/chat/completions", json=body) as response,
    ):
        text = await read_until_cut(response)
    assert response.status == 200
    assert '"error"' in text
    assert "[DONE]" not in text
    assert len(plane.model.calls) == 1
    state = await plane.budget(api_key(budget_nusd=10**9))
    assert state is not None
    assert state.held_nusd == 0
    assert state.spent_nusd > 0  # what was said until then is paid for
    assert plane.sink.traces[-1][0].status == "error"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [0, 1])
async def test_a_client_that_leaves_cancels_the_upstream_call_and_is_billed_once(
    serve: Any, plane: Plane, stream: bool, words: int
) -> None:
    plane.knows(api_key(budget_nusd=10**9))
    plane.model.plays(*[Delta(text="Hel")] * words, asyncio.Event())
    url = await serve(plane.gateway())
    body = {"model": "acme/small", "messages": ASK, "stream": stream}
    async with aiohttp.ClientSession(headers={"authorization": "Bearer ms-good"}) as http:
        asking = asyncio.create_task(http.post(f"{url}/chat/completions", json=body))
        await plane.model.started.wait()
        if stream and words:
            response = await asking
            assert b"Hel" in await response.content.readline()
            response.close()
        else:
            asking.cancel()
        async with asyncio.timeout(5):
            await plane.model.cancelled.wait()
            while not plane.sink.traces:
                await asyncio.sleep(0.005)
    state = await plane.budget(api_key(budget_nusd=10**9))
    assert state is not None
    assert state.held_nusd == 0
    assert state.spent_nusd > 0
    assert plane.sink.traces[-1][0].attributes[Attr.ERROR_TYPE] == "cancelled"


async def test_a_hard_budget_lowers_max_tokens_to_what_it_pays_for(serve: Any, plane: Plane) -> None:
    plane.knows(api_key(budget_nusd=30_000))
    plane.model.says("Hello.", usage=Usage(10, 5))
    async with client(serve, plane) as sdk:
        await sdk.chat.completions.create(model="acme/small", messages=ASK, max_tokens=900)
    granted = plane.model.calls[0].max_tokens
    assert granted is not None
    assert 16 <= granted < 900
    state = await plane.budget(api_key(budget_nusd=30_000))
    assert state is not None
    assert (state.spent_nusd, state.held_nusd) == (3000, 0)


async def test_a_spent_budget_is_refused_and_an_unknown_price_is_not_free(serve: Any, plane: Plane) -> None:
    plane.knows(api_key(budget_nusd=14_000))
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
    plane.knows(api_key(requests_per_minute=2))
    plane.model.says("Hello.")
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model="acme/small", messages=ASK)
        await sdk.chat.completions.create(model="acme/small", messages=ASK)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.chat.completions.create(model="acme/small", messages=ASK)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert caught.value.response.headers["retry-after"] == "30"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "2"


async def test_a_cached_answer_is_free_and_replayed_as_a_stream(serve: Any, plane: Plane) -> None:
    plane.model.says(FACT)
    async with client(serve, plane) as sdk:
        use = {"x-mainstay-cache": "use"}
        first = await sdk.chat.completions.with_raw_response.create(
            model="bot", messages=ASK, extra_headers=use
        )
        stream = await sdk.chat.completions.create(model="bot", messages=ASK, stream=True, extra_headers=use)
        chunks = [c async for c in stream]
        third = await sdk.chat.completions.with_raw_response.create(model="bot", messages=ASK)
    assert first.headers["x-mainstay-cache"] == "miss"
    assert third.headers["x-mainstay-cache"] == "bypass"
    assert chunks[0].choices[0].delta.content == f"{FACT} [1]"
    extension = chunks[-1].mainstay  # type: ignore[attr-defined]
    assert (extension["cache"], extension["cost_nusd"]) == ("hit", 0)
    assert extension["citations"][0]["quote"] == FACT
    assert len(plane.model.calls) == 2


async def test_a_silent_provider_is_bridged_by_comments(serve: Any, plane: Plane) -> None:
    go = asyncio.Event()
    plane.model.plays(go, Delta(text="Hello."), Delta(finish_reason="stop"))
    url = await serve(plane.gateway(ping_after_s=0.01))
    body = {"model": "acme/small", "messages": ASK, "stream": True}
    async with (
        aiohttp.ClientSession(headers={"x-api-key": "ms-good"}) as http,
        http.post(f"{url}/chat/completions", json=body) as response,
    ):
        first = await response.content.readline()
        go.set()
        rest = await response.text()
    assert first == b": ping\n"
    assert rest.rstrip().endswith("data: [DONE]")
    assert "Hello." in rest


async def test_a_callers_trace_goes_on(serve: Any, plane: Plane) -> None:
    plane.model.says("Hello.")
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="acme/small", messages=ASK, extra_headers={"traceparent": parent}
        )
    assert raw.headers["x-mainstay-trace-id"] == "a" * 32
    assert plane.sink.traces[0][0].parent_id == "b" * 16


async def test_models_lists_what_the_key_may_use(serve: Any, plane: Plane) -> None:
    plane.knows(api_key(models=("bot", "acme/*")))
    async with client(serve, plane) as sdk:
        names = [m.id async for m in sdk.models.list()]
        one = await sdk.models.retrieve("bot@production")
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("local/extractive")
    assert names == ["bot", "bot@production", "bot@r1", "acme/small", "acme/unpriced"]
    assert one.mainstay["environment"] == "production"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("raw", "status", "said"),
    [
        (b'{"model": "m",\n  oops}', 400, "line 2, column 3"),
        (b"[1]", 400, "JSON object"),
        (b"x" * 2000, 413, "larger than"),
    ],
)
async def test_a_bad_body_is_explained(serve: Any, plane: Plane, raw: bytes, status: int, said: str) -> None:
    url = await serve(plane.gateway(body_limit_bytes=1000))
    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer ms-good"}) as http,
        http.post(f"{url}/chat/completions", data=raw) as response,
    ):
        body = json.loads(await response.text())
    assert response.status == status
    assert said in body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/chat/completions", 405), ("GET", "/nope", 404)]
)
async def test_other_paths_and_methods_are_refused(
    serve: Any, plane: Plane, method: str, path: str, status: int
) -> None:
    url = await serve(plane.gateway())
    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer ms-good"}) as http,
        http.request(method, url + path) as response,
    ):
        assert response.status == status


async def test_other_fields_reach_compatible_providers_and_are_refused_elsewhere(
    serve: Any, plane: Plane
) -> None:
    local = Scripted("local")
    local.supports -= {"json_object"}
    local.says("Hello.")
    plane.adds("local/tiny", Target("local/tiny", local, "tiny", CHEAP, None, None))
    plane.model.says("{}")
    schema: Any = {"type": "json_object"}
    async with client(serve, plane) as sdk:
        await sdk.chat.completions.create(model="acme/small", messages=ASK, response_format=schema, user="u1")
        for model in ("bot", "local/tiny"):
            with pytest.raises(openai.BadRequestError) as caught:
                await sdk.chat.completions.create(model=model, messages=ASK, response_format=schema)
            assert caught.value.param == "response_format"
    assert plane.model.calls[0].response_format == ResponseFormat()
    assert plane.model.calls[0].user == "u1"


class Letters:
    """Embeds a text as its share of vowels and of other letters."""

    name = "letters"
    fingerprint = "letters-1"
    dimension = 2

    def embed(self, texts: Any) -> Any:
        vowels = np.array([[sum(c in "aeiou" for c in t), len(t)] for t in texts], dtype=np.float32)
        return vowels / np.linalg.norm(vowels, axis=1, keepdims=True)

    def count_tokens(self, texts: Any) -> int:
        return sum(len(t.split()) for t in texts)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_come_back_as_asked(serve: Any, plane: Plane, encoding: Any) -> None:
    options: dict[str, Any] = {} if encoding is None else {"encoding_format": encoding}
    async with client(serve, plane, embedder=Letters()) as sdk:
        reply = await sdk.embeddings.create(model="letters", input=["a bee", "sky"], **options)
        with pytest.raises(openai.NotFoundError):
            await sdk.embeddings.create(model="other", input="x")
        with pytest.raises(openai.BadRequestError):
            await sdk.embeddings.create(model="letters", input=[])
    assert reply.usage.prompt_tokens == 3
    first = reply.data[0].embedding
    vector = np.frombuffer(__import__("base64").b64decode(first), "<f4") if isinstance(first, str) else first
    assert np.allclose(vector, Letters().embed(["a bee"])[0])


async def test_many_streams_on_one_small_budget_never_overspend(serve: Any, plane: Plane) -> None:
    key = api_key(budget_nusd=100_000)
    plane.knows(key)
    plane.model.says("Hello", " there.", usage=Usage(24, 16))

    async def one(sdk: openai.AsyncOpenAI) -> None:
        try:
            stream = await sdk.chat.completions.create(
                model="acme/small", messages=ASK, stream=True, max_tokens=16
            )
            async for _ in stream:
                pass
        except openai.RateLimitError:
            return

    async with client(serve, plane) as sdk:
        await asyncio.gather(*(one(sdk) for _ in range(40)))
    state = await plane.budget(key)
    assert state is not None
    assert state.held_nusd == 0
    assert 0 < state.spent_nusd <= 100_000


async def test_a_release_without_its_model_says_so(serve: Any, plane: Plane) -> None:
    plane.runs(("bot", runnable(model="acme/gone")))
    async with client(serve, plane) as sdk:
        with pytest.raises(openai.NotFoundError, match="acme/gone"):
            await sdk.chat.completions.create(model="bot", messages=ASK)


async def test_a_failure_after_a_comment_is_told_in_the_stream(serve: Any, plane: Plane) -> None:
    go = asyncio.Event()
    plane.model.plays(go, ProviderAuthFailed("refused our key", provider="acme", upstream_status=401))
    url = await serve(plane.gateway(ping_after_s=0.01))
    body = {"model": "acme/small", "messages": ASK, "stream": True}
    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer ms-good"}) as http,
        http.post(f"{url}/chat/completions", json=body) as response,
    ):
        await response.content.readline()
        go.set()
        rest = await read_until_cut(response)
    assert "upstream_credentials_exhausted" in rest
    assert "[DONE]" not in rest
