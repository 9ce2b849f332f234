"""The OpenAI-compatible provider against a real local HTTP server."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from contextlib import aclosing
from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models import (
    ChatCall,
    ChatMessage,
    ContextTooLong,
    Delta,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
    Usage,
)
from mainstay.models.providers import HttpProviderSettings, OpenAiCompatible
from mainstay.models.providers.openai_wire import MalformedEvent, decode_event, decode_usage
from support.openai_server import OpenAiServer, Reply

WIRE = Path(__file__).parents[1] / "wire" / "models"


def call(**more: object) -> ChatCall:
    return ChatCall(model="m", messages=(ChatMessage("user", "Hi there"),), **more)  # type: ignore[arg-type]


async def collect(
    provider: OpenAiCompatible, chat: ChatCall | None = None, deadline_s: float = 5.0
) -> list[Delta]:
    return [delta async for delta in provider.stream(chat or call(), deadline_s)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def usage_of(deltas: list[Delta]) -> Usage | None:
    return next((delta.usage for delta in deltas if delta.usage is not None), None)


def finish_of(deltas: list[Delta]) -> str | None:
    return next((delta.finish_reason for delta in deltas if delta.finish_reason is not None), None)


async def test_an_answer_streams_with_its_finish_and_usage(provider, upstream):
    deltas = await collect(provider)

    assert [delta.text for delta in deltas if delta.text] == ["Hello", " world"]
    assert finish_of(deltas) == "stop"
    assert usage_of(deltas) == Usage(input_tokens=11, output_tokens=3)


async def test_a_request_carries_every_setting_and_the_key(provider, upstream):
    chat = call(
        max_tokens=9, temperature=0.5, top_p=0.9, stop=("END",), seed=7, extra={"logit_bias": {"1": 2}}
    )

    await collect(provider, chat)

    seen = upstream.requests[0]
    assert seen.headers["Authorization"] == "Bearer sk-test-key"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi there"}],
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
    await collect(provider, call(extra={"model": "dear", "stream": False, "n": 5, "messages": []}))

    body = upstream.requests[0].body
    assert (body["model"], body["stream"], len(body["messages"])) == ("m", True, 1)
    assert "n" not in body


async def test_a_vendor_may_name_the_token_limit_otherwise(upstream):
    settings = HttpProviderSettings("openai", upstream.base_url, max_tokens_field="max_completion_tokens")
    provider = OpenAiCompatible(settings)

    await collect(provider, call(max_tokens=5))
    await provider.close()

    assert upstream.requests[0].body["max_completion_tokens"] == 5
    assert "max_tokens" not in upstream.requests[0].body
    assert "Authorization" not in upstream.requests[0].headers


async def test_usage_is_estimated_when_the_provider_gives_none(provider, upstream):
    upstream.plays(Reply(usage=None))

    usage = usage_of(await collect(provider))

    assert usage == Usage(input_tokens=2, output_tokens=3, estimated=True)


async def test_a_missing_done_after_the_finish_is_fine(provider, upstream):
    upstream.plays(Reply(done=False))

    assert text_of(await collect(provider)) == "Hello world"


async def test_connections_are_used_again(provider, upstream):
    for _ in range(3):
        await collect(provider)

    assert len(upstream.sockets) == 1


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

    with pytest.raises(ProviderError) as caught:
        await collect(provider)

    assert type(caught.value) is kind
    assert caught.value.upstream_status == status
    assert caught.value.provider == "vendor"


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
        await collect(provider)

    assert caught.value.retryable
    assert caught.value.retry_after_s == seconds


async def test_a_refused_key_is_not_repeated_in_the_message(provider, upstream):
    upstream.plays(Reply(status=401, error={"message": "Incorrect API key provided: sk-te***-key"}))

    with pytest.raises(ProviderAuthFailed) as caught:
        await collect(provider)

    assert "sk-" not in str(caught.value)


async def test_a_prompt_too_long_for_llamacpp_is_known_by_its_type(provider, upstream):
    recorded = json.loads((WIRE / "llamacpp_context_error.json").read_bytes())
    upstream.plays(Reply(status=400, error=recorded["error"]))

    with pytest.raises(ContextTooLong):
        await collect(provider)


async def test_a_long_reason_is_cut(upstream):
    upstream.plays(Reply(status=502, error={"message": "x" * 2000}))
    provider = OpenAiCompatible(HttpProviderSettings("vendor", upstream.base_url))

    with pytest.raises(ProviderError) as caught:
        await collect(provider)
    await provider.close()

    assert len(caught.value.message) < 400


@pytest.mark.parametrize("pieces", [0, 1, 2])
async def test_a_stream_cut_half_way_raises_after_its_deltas(provider, upstream, pieces):
    upstream.plays(Reply(cut_after=pieces))
    stream = provider.stream(call(), 5.0)

    seen = [await anext(stream) for _ in range(pieces)]

    assert [delta.text for delta in seen] == ["Hello", " world"][:pieces]
    with pytest.raises(ProviderStreamBroken):
        await anext(stream)


async def test_a_stream_that_ends_without_a_finish_is_no_success(provider, upstream):
    upstream.plays(Reply(finish_reason=None))

    with pytest.raises(ProviderStreamBroken):
        await collect(provider)


async def test_an_event_that_is_no_json_is_skipped_when_the_next_can_be_read(provider, upstream):
    said, end = (
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    )
    upstream.plays(Reply(raw=said + b"data: {oops\n\n" + said + b"data: <oops>\n\n" + end))

    assert "".join(delta.text for delta in await collect(provider)) == "aa"


async def test_two_events_in_a_row_that_are_no_json_break_the_stream(provider, upstream):
    upstream.plays(
        Reply(raw=b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' + b"data: {oops\n\n" * 2)
    )

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await collect(provider)


@pytest.mark.parametrize("cut", [b'data: {"choices": [{"delta": {"con', b"data: ", b": keep-alive\n"])
async def test_a_stream_that_ends_within_an_event_is_broken(provider, upstream, cut):
    upstream.plays(Reply(raw=b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' + cut))
    stream = provider.stream(call(), 5.0)

    assert (await anext(stream)).text == "a"
    with pytest.raises(ProviderStreamBroken):
        await anext(stream)


async def test_silence_within_an_answer_times_out(provider, upstream):
    upstream.plays(Reply(silent_after=1))

    with pytest.raises(ProviderTimeout):
        await collect(provider, deadline_s=30.0)


async def test_the_deadline_bounds_the_wait_for_the_first_event(provider, upstream):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await collect(provider, deadline_s=0.2)

    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_closing_the_generator_closes_the_socket(provider, upstream):
    upstream.plays(Reply(silent_after=1))

    async with aclosing(provider.stream(call(), 30.0)) as stream:
        first = await anext(stream)

    assert first.text == "Hello"
    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_cancelling_the_caller_closes_the_socket(provider, upstream):
    upstream.plays(Reply(silent_before=True))
    task = asyncio.create_task(collect(provider, deadline_s=30.0))
    while not upstream.requests:
        await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_a_server_that_is_not_there_is_unreachable_and_its_address_stays_ours():
    provider = OpenAiCompatible(HttpProviderSettings("gone", "http://127.0.0.1:9"))

    with pytest.raises(ProviderUnreachable) as caught:
        await collect(provider)
    await provider.close()

    assert caught.value.retryable
    assert "127.0.0.1" not in str(caught.value)


async def test_a_whole_answer_is_asked_for_without_a_stream(provider, upstream):
    answer = await provider.complete(call(max_tokens=9), 5.0)

    [seen] = upstream.requests
    assert seen.body == {"model": "m", "messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 9}
    assert seen.headers["Accept"] == "application/json"
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello world", "stop")
    assert answer.usage == Usage(11, 3)
    assert json.loads(answer.raw)["id"] == "chatcmpl-1"


async def test_usage_of_a_whole_answer_is_estimated_when_the_provider_gives_none(provider, upstream):
    upstream.plays(Reply(usage=None))

    answer = await provider.complete(call(), 5.0)

    assert answer.usage == Usage(input_tokens=2, output_tokens=3, estimated=True)


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


async def test_the_deadline_bounds_a_whole_answer(provider, upstream):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await provider.complete(call(), 0.2)

    await asyncio.wait_for(upstream.hung_up.wait(), 5)


async def test_cancelling_a_whole_answer_closes_the_socket(provider, upstream):
    upstream.plays(Reply(silent_before=True))
    task = asyncio.create_task(provider.complete(call(), 30.0))
    while not upstream.requests:
        await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.hung_up.wait(), 5)


def event(**more: object) -> bytes:
    return b"data: " + json.dumps(more).encode() + b"\n\n"


def choice(index: int, text: str = "", finish: str | None = None) -> dict[str, object]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish}


async def test_a_stream_of_two_choices_is_whole_when_both_are(provider, upstream):
    begun = [event(choices=[choice(0, "a")]), event(choices=[choice(1, "b")])]
    ends = [event(choices=[choice(0, finish="stop")]), event(choices=[choice(1, finish="length")])]
    upstream.plays(Reply(raw=b"".join([*begun, *ends])), Reply(raw=b"".join([*begun, ends[0]])))

    deltas = await collect(provider, call(n=2))

    assert [(d.index, d.text) for d in deltas if d.text] == [(0, "a"), (1, "b")]
    assert {d.index: d.finish_reason for d in deltas if d.finish_reason} == {0: "stop", 1: "length"}
    with pytest.raises(ProviderStreamBroken):
        await collect(provider, call(n=2))


async def test_every_event_can_be_relayed_as_it_came(provider, upstream):
    raw = (WIRE / "openai_stream.sse").read_bytes()
    upstream.plays(Reply(raw=raw))

    relayed = await collect(provider, call(source_format="openai.chat"))
    translated = await collect(provider, call(source_format="anthropic.messages"))

    assert all(b"data: " + delta.raw in raw for delta in relayed)
    assert [delta.raw for delta in translated if delta.raw] == []


async def test_what_a_provider_cannot_do_is_refused_before_it_is_asked(upstream):
    provider = OpenAiCompatible(HttpProviderSettings("vendor", upstream.base_url))
    provider.supports = provider.supports - {"logprobs"}

    with pytest.raises(ProviderBadRequest, match="logprobs"):
        await provider.complete(call(logprobs=True), 5.0)
    with pytest.raises(ProviderBadRequest, match="logprobs"):
        await collect(provider, call(logprobs=True))
    await provider.close()

    assert upstream.requests == []


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


def test_a_base_url_without_a_scheme_is_a_config_error():
    with pytest.raises(ConfigError, match="http://"):
        OpenAiCompatible(HttpProviderSettings("vendor", "localhost:8000", Secret("k")))


def test_one_provider_serves_one_event_loop_after_another():
    async def once() -> str:
        async with OpenAiServer() as server:
            provider = OpenAiCompatible(HttpProviderSettings("vendor", server.base_url))
            try:
                return text_of(await collect(provider))
            finally:
                await provider.close()

    assert [asyncio.run(once()) for _ in range(2)] == ["Hello world"] * 2


@pytest.mark.parametrize(
    ("fixture", "text", "finish", "usage"),
    [
        ("openai_stream.sse", "Leave is 27 days – déjà vu.", "stop", Usage(1200, 9, 1024, 4)),
        ("mistral_parts.sse", "Leave is 27 days.", "length", Usage(20, 6)),
        ("deepseek_cached.sse", "27 days.", "stop", Usage(100, 12, 64, 7)),
        ("groq_usage.sse", "27 days.", "stop", Usage(40, 4)),
        ("llamacpp_stream.sse", "The colour I'm referring to", "length", Usage(34, 6, 33)),
    ],
)
async def test_every_dialect_reads_the_same(provider, upstream, fixture, text, finish, usage):
    upstream.plays(Reply(raw=(WIRE / fixture).read_bytes()))

    deltas = await collect(provider)

    assert (text_of(deltas), finish_of(deltas), usage_of(deltas)) == (text, finish, usage)


async def test_an_error_inside_a_stream_is_mapped_like_a_status(provider, upstream):
    upstream.plays(Reply(raw=(WIRE / "openrouter_error.sse").read_bytes()))

    with pytest.raises(ProviderRateLimited):
        await collect(provider)


@pytest.mark.parametrize("counts", [(-5, 10), (5, -10), (True, 10), ("5", 10)])
def test_counts_that_cannot_be_are_no_usage(counts):
    assert decode_usage({"prompt_tokens": counts[0], "completion_tokens": counts[1]}) is None


def test_cached_and_reasoning_tokens_below_zero_count_as_none():
    details = {"prompt_tokens_details": {"cached_tokens": -9}, "prompt_cache_hit_tokens": -1}
    details |= {"completion_tokens_details": {"reasoning_tokens": -9}}
    assert decode_usage({"prompt_tokens": 5, "completion_tokens": 6, **details}) == Usage(5, 6)


def test_a_delta_that_is_no_object_is_a_malformed_event():
    with pytest.raises(MalformedEvent, match="delta"):
        decode_event('{"choices": [{"delta": "hello"}]}')


async def test_a_redirect_is_not_followed_with_the_key(provider, upstream):
    elsewhere = {"Location": f"{upstream.base_url}/chat/completions"}
    upstream.plays(Reply(status=307, headers=elsewhere, error={"message": "moved"}), Reply())

    with pytest.raises(ProviderError) as caught:
        await collect(provider)

    assert caught.value.upstream_status == 307
    assert len(upstream.requests) == 1
