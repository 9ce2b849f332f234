"""The OpenAI-compatible provider against a real local HTTP server."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import pytest
from models_adapters import OPENAI, Adapter, broken_off, deltas, failures

from mainstay.models import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    Usage,
)
from mainstay.models.collect import collect
from mainstay.models.providers import HttpProviderSettings, OpenAiCompatible
from mainstay.models.types import Choice
from support.openai_server import Reply

WIRE = Path(__file__).parents[1] / "wire" / "models"
call = OPENAI.call


@pytest.fixture
def adapter() -> Adapter:
    return OPENAI


# --- requests ---------------------------------------------------------------------------------------------------


async def test_a_request_carries_every_setting_and_the_key(provider, upstream):
    chat = call(
        max_tokens=9, temperature=0.5, top_p=0.9, stop=("END",), seed=7, extra={"logit_bias": {"1": 2}}
    )

    await deltas(provider, chat)

    seen = upstream.requests[0]
    assert seen.headers["Authorization"] == "Bearer sk-test-key"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "logit_bias": {"1": 2},
    }


async def test_extra_fields_cannot_replace_ours(provider, upstream):
    await deltas(provider, call(extra={"model": "dear", "stream": False, "n": 5, "messages": []}))

    body = upstream.requests[0].body
    assert (body["model"], body["stream"], len(body["messages"])) == ("m", True, 1)
    assert "n" not in body


async def test_a_vendor_may_name_the_token_limit_otherwise(upstream):
    settings = HttpProviderSettings("openai", upstream.base_url, max_tokens_field="max_completion_tokens")
    provider = OpenAiCompatible(settings)

    await deltas(provider, call(max_tokens=5))
    await provider.close()

    assert upstream.requests[0].body["max_completion_tokens"] == 5
    assert "max_tokens" not in upstream.requests[0].body
    assert "Authorization" not in upstream.requests[0].headers


async def test_a_whole_answer_is_asked_for_without_a_stream(provider, upstream):
    answer = await provider.complete(call(max_tokens=9), 5.0)

    [seen] = upstream.requests
    assert seen.body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    assert seen.headers["Accept"] == "application/json"
    assert json.loads(answer.raw)["id"] == "chatcmpl-1"


async def test_what_a_provider_cannot_do_is_refused_before_it_is_asked(upstream):
    provider = OpenAiCompatible(HttpProviderSettings("vendor", upstream.base_url))
    provider.supports = provider.supports - {"logprobs"}

    with pytest.raises(ProviderBadRequest, match="logprobs"):
        await provider.complete(call(logprobs=True), 5.0)
    with pytest.raises(ProviderBadRequest, match="logprobs"):
        await deltas(provider, call(logprobs=True))
    await provider.close()

    assert upstream.requests == []


# --- streams ----------------------------------------------------------------------------------------------------


async def test_a_missing_done_after_the_finish_is_fine(provider, upstream):
    upstream.plays(Reply(done=False))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "Hello world"


async def test_an_event_that_is_no_json_is_skipped_when_the_next_can_be_read(provider, upstream):
    said, end = (
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    )
    upstream.plays(Reply(raw=said + b"data: {oops\n\n" + said + b"data: <oops>\n\n" + end))

    assert "".join(delta.text for delta in await deltas(provider, call())) == "aa"


async def test_two_events_in_a_row_that_are_no_json_break_the_stream(provider, upstream):
    upstream.plays(
        Reply(raw=b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' + b"data: {oops\n\n" * 2)
    )

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await deltas(provider, call())


@pytest.mark.parametrize("cut", [b'data: {"choices": [{"delta": {"con', b"data: ", b": keep-alive\n"])
async def test_a_stream_that_ends_within_an_event_is_broken(provider, upstream, cut):
    upstream.plays(Reply(raw=b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' + cut))

    said, failure = await broken_off(provider, call())

    assert said == "a"
    assert type(failure) is ProviderStreamBroken


def event(**more: object) -> bytes:
    return b"data: " + json.dumps(more).encode() + b"\n\n"


def choice(index: int, text: str = "", finish: str | None = None) -> dict[str, object]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish}


async def test_a_stream_of_two_choices_is_whole_when_both_are(provider, upstream):
    begun = [event(choices=[choice(0, "a")]), event(choices=[choice(1, "b")])]
    ends = [event(choices=[choice(0, finish="stop")]), event(choices=[choice(1, finish="length")])]
    upstream.plays(Reply(raw=b"".join([*begun, *ends])), Reply(raw=b"".join([*begun, ends[0]])))

    seen = await deltas(provider, call(n=2))

    assert [(d.index, d.text) for d in seen if d.text] == [(0, "a"), (1, "b")]
    assert {d.index: d.finish_reason for d in seen if d.finish_reason} == {0: "stop", 1: "length"}
    with pytest.raises(ProviderStreamBroken):
        await deltas(provider, call(n=2))


@pytest.mark.parametrize(
    ("fixture", "choice", "usage"),
    [
        ("openai_stream.sse", Choice("Leave is 27 days – déjà vu."), Usage(1200, 9, 1024, 4)),
        ("mistral_parts.sse", Choice("Leave is 27 days.", "length", "hidden"), Usage(20, 6)),
        ("deepseek_cached.sse", Choice("27 days.", reasoning="Let me see"), Usage(100, 12, 64, 7)),
        ("groq_usage.sse", Choice("27 days."), Usage(40, 4)),
        ("llamacpp_stream.sse", Choice("The colour I'm referring to", "length"), Usage(34, 6, 33)),
    ],
)
async def test_every_dialect_reads_the_same(provider, upstream, fixture, choice, usage):
    upstream.plays(Reply(raw=(WIRE / fixture).read_bytes()))

    answer = await collect(provider.stream(call(), 5.0))

    assert (answer.choices, answer.usage) == ((choice,), usage)


async def test_every_event_can_be_relayed_as_it_came(provider, upstream):
    raw = (WIRE / "openai_stream.sse").read_bytes()
    upstream.plays(Reply(raw=raw))

    relayed = await deltas(provider, call(source_format="openai.chat"))
    translated = await deltas(provider, call(source_format="anthropic.messages"))

    _role_alone, *events, _done = [line.removeprefix(b"data: ") for line in raw.splitlines() if line]
    assert [delta.raw for delta in relayed] == events
    assert [delta.raw for delta in translated if delta.raw] == []


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"code": "invalid_api_key"}, ProviderAuthFailed),
        (403, None, ProviderAuthFailed),
        (402, None, ProviderQuotaExhausted),
        (429, {"code": "insufficient_quota"}, ProviderQuotaExhausted),
        (429, {"code": "rate_limit_exceeded"}, ProviderRateLimited),
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (400, {"type": "exceed_context_size_error", "code": 400}, ContextTooLong),
        (413, None, ContextTooLong),
        (400, {"message": "the number 429 is bad"}, ProviderBadRequest),
        (422, None, ProviderBadRequest),
        (404, None, ProviderModelMissing),
        (408, None, ProviderTimeout),
        (500, None, ProviderError),
        (503, {"message": "overloaded"}, ProviderError),
        (302, None, ProviderError),
    ],
)
async def test_a_status_becomes_its_error(provider, upstream, status, error, kind):
    upstream.plays(Reply(status=status, error=error))

    for failure in await failures(provider, call()):
        assert type(failure) is kind
        assert failure.upstream_status == status
        assert failure.provider == "vendor"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
async def test_the_wait_a_provider_asks_for_is_passed_on(provider, upstream, headers, seconds):
    upstream.plays(Reply(status=429, headers=headers))

    with pytest.raises(ProviderRateLimited) as caught:
        await deltas(provider, call())

    assert caught.value.retryable
    assert caught.value.retry_after_s == seconds


async def test_a_refused_key_is_not_repeated_in_the_message(provider, upstream):
    upstream.plays(Reply(status=401, error={"message": "Incorrect API key provided: sk-te***-key"}))

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider, call())

    assert "sk-" not in str(caught.value)


async def test_a_prompt_too_long_for_llamacpp_is_known_by_its_type(provider, upstream):
    recorded = json.loads((WIRE / "llamacpp_context_error.json").read_bytes())
    upstream.plays(Reply(status=400, error=recorded["error"]))

    with pytest.raises(ContextTooLong):
        await deltas(provider, call())


async def test_a_long_reason_is_cut(upstream):
    upstream.plays(Reply(status=502, error={"message": "x" * 2000}))
    provider = OpenAiCompatible(HttpProviderSettings("vendor", upstream.base_url))

    with pytest.raises(ProviderError) as caught:
        await deltas(provider, call())
    await provider.close()

    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(status=429, error={"code": "rate_limit_exceeded"}), ProviderRateLimited),
        (Reply(whole={"error": {"message": "slow", "code": 429}}), ProviderRateLimited),
        (Reply(whole={"choices": []}), ProviderStreamBroken),
        (Reply(finish_reason=None), ProviderStreamBroken),
    ],
)
async def test_a_whole_answer_fails_by_its_reason(provider, upstream, reply, kind):
    upstream.plays(reply)

    with pytest.raises(kind):
        await provider.complete(call(), 5.0)


async def test_an_error_inside_a_stream_is_mapped_like_a_status(provider, upstream):
    upstream.plays(Reply(raw=(WIRE / "openrouter_error.sse").read_bytes()))

    with pytest.raises(ProviderRateLimited):
        await deltas(provider, call())


# --- embeddings -------------------------------------------------------------------------------------------------


def vector(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@pytest.mark.parametrize("form", [vector, lambda *v: list(v)])
async def test_embeddings_come_in_the_order_of_the_texts(provider, upstream, form):
    upstream.plays(
        Reply(
            whole={
                "model": "emb",
                "data": [{"index": 1, "embedding": form(0.5, 1)}, {"index": 0, "embedding": form(0.25, -1)}],
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            }
        )
    )

    found = await provider.embed("emb-small", ("a", "b"), 2, 5.0)

    assert upstream.requests[0].body == {
        "model": "emb-small",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "dimensions": 2,
    }
    assert upstream.requests[0].path == "/v1/embeddings"
    assert (found.vectors, found.input_tokens, found.model) == (((0.25, -1.0), (0.5, 1.0)), 4, "emb")


@pytest.mark.parametrize(
    "whole",
    [
        {"data": [{"index": 0, "embedding": [0.5]}]},
        {"data": [{"embedding": "!"}, {"embedding": "?"}]},
        {"data": None},
        {"data": [{}, {}]},
    ],
)
async def test_embeddings_that_make_no_sense_are_an_error(provider, upstream, whole):
    upstream.plays(Reply(whole=whole))

    with pytest.raises(ProviderStreamBroken):
        await provider.embed("emb", ("a", "b"), None, 5.0)
