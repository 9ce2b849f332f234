"""The gateway as the official OpenAI SDK sees it, over a real socket."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import openai
import pytest
from serving_door import ASK, client
from serving_plane import CHEAP, CHECK_IN, Plane, Scripted, runnable

from mainstay.models import ProviderAuthFailed, ProviderError, ProviderRateLimited
from mainstay.models.types import ResponseFormat, Target, Usage
from mainstay.observe.types import Attr


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
    plane.model.says(CHECK_IN + " [3]", " Elephants", " fly at night.")
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model="bot", messages=ASK)
    reply = raw.parse()
    extension = reply.mainstay  # type: ignore[attr-defined]
    assert reply.choices[0].message.content == f"{CHECK_IN} [1]"
    assert raw.headers["x-mainstay-release"] == "bot r1"
    assert extension["citations"][0]["quote"] == CHECK_IN
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
    plane.model.says(
        *[f"{word} " for word in CHECK_IN.split()], "A near miss must be reported within 24 hours."
    )
    async with client(serve, plane) as sdk:
        stream = await sdk.chat.completions.create(model="bot", messages=ASK, stream=True)
        texts = [c.choices[0].delta.content async for c in stream if c.choices[0].delta.content]
    assert texts == [f"{CHECK_IN} [1]", " A near miss must be reported within 24 hours. [2]"]


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


async def test_a_callers_trace_goes_on(serve: Any, plane: Plane) -> None:
    plane.model.says("Hello.")
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with client(serve, plane) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="acme/small", messages=ASK, extra_headers={"traceparent": parent}
        )
    assert raw.headers["x-mainstay-trace-id"] == "a" * 32
    assert plane.sink.traces[0][0].parent_id == "b" * 16


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
    vector = np.frombuffer(base64.b64decode(first), "<f4") if isinstance(first, str) else first
    assert np.allclose(vector, Letters().embed(["a bee"])[0])


async def test_a_release_without_its_model_says_so(serve: Any, plane: Plane) -> None:
    plane.runs(("bot", runnable(model="acme/gone")))
    async with client(serve, plane) as sdk:
        with pytest.raises(openai.NotFoundError, match="acme/gone"):
            await sdk.chat.completions.create(model="bot", messages=ASK)
