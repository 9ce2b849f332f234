"""The Anthropic provider against a local server of the documented wire format, itself read by the official SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import anthropic
import pytest
import pytest_asyncio

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
from mainstay.models.collect import collect
from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.providers.anthropic import Anthropic
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Choice, Completion, Thinking, Tool, ToolCall, ToolCallDelta
from support.anthropic_server import AnthropicServer, Reply, error_frame, frame, message, stream, text

THINKING = {"type": "thinking", "thinking": "Let me see, yes.", "signature": "sig=="}
REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}
WEATHER = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ghent", "days": [1, 2]}}
CLOCK = {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}
RICH = message(THINKING, REDACTED, text("I ask."), WEATHER, CLOCK, stop_reason="tool_use")


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as server:
        yield server


@pytest_asyncio.fixture
async def provider(upstream: AnthropicServer) -> AsyncIterator[Anthropic]:
    provider = Anthropic(settings(upstream.base_url))
    yield provider
    await provider.close()


def settings(base_url: str, **more: object) -> HttpProviderSettings:
    return HttpProviderSettings(
        "claude", base_url, Secret("sk-ant-secret"), connect_timeout_s=2.0, idle_timeout_s=0.3, **more
    )  # type: ignore[arg-type]


def call(**more: object) -> ChatCall:
    return ChatCall(**{"model": "claude-test-1", "messages": (ChatMessage("user", "Hi"),), **more})  # type: ignore[arg-type]


def relayed(**more: object) -> ChatCall:
    source = {"model": "app", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more}
    return call(source=source, source_format="anthropic.messages", max_tokens=7)


async def deltas(provider: Anthropic, chat: ChatCall | None = None, deadline_s: float = 5.0) -> list[Delta]:
    return [delta async for delta in provider.stream(chat or call(), deadline_s)]


# --- the server is true: the official SDK reads what it sends ---------------------------------------------------


async def test_the_official_sdk_reads_the_servers_streams_as_its_whole_messages(upstream):
    upstream.plays(Reply(RICH))
    async with anthropic.AsyncAnthropic(base_url=upstream.base_url, api_key="k", max_retries=0) as client:
        asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        async with client.messages.stream(**asked) as answer:
            streamed = await answer.get_final_message()
        whole = await client.messages.create(**asked)

    assert [block.to_dict() for block in streamed.content] == RICH["content"]
    assert streamed.usage.to_dict() == whole.usage.to_dict()
    assert (streamed.stop_reason, whole.stop_reason) == ("tool_use", "tool_use")


async def test_the_official_sdk_knows_the_servers_errors(upstream):
    upstream.plays(Reply(status=529, error={"type": "overloaded_error", "message": "Overloaded"}))
    async with anthropic.AsyncAnthropic(base_url=upstream.base_url, api_key="k", max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )

    assert caught.value.type == "overloaded_error"


# --- answers ----------------------------------------------------------------------------------------------------


async def test_an_answer_streams_with_its_finish_and_usage(provider, upstream):
    seen = await deltas(provider)

    assert [delta.text for delta in seen if delta.text] == ["Hell", "o wo", "rld"]
    assert [delta.finish_reason for delta in seen if delta.finish_reason] == ["stop"]
    assert seen[0].model == "claude-test-1"
    assert all(delta.raw is None for delta in seen)


async def test_usage_has_disjoint_classes_that_sum(provider, upstream):
    seen = await deltas(provider)

    assert seen[-1].usage == Usage(
        input_tokens=37,
        output_tokens=9,
        cached_input_tokens=20,
        reasoning_tokens=5,
        cache_write_tokens=7,
        cache_write_1h_tokens=3,
    )


async def test_a_streamed_and_a_whole_answer_are_the_same(provider, upstream):
    upstream.plays(Reply(RICH))

    streamed = await collect(provider.stream(call(), 5.0))
    whole = await provider.complete(call(), 5.0)

    assert whole.choices == (
        Choice(
            text="I ask.",
            finish_reason="tool_calls",
            reasoning="Let me see, yes.",
            thinking=(Thinking("Let me see, yes.", "sig=="), Thinking(encrypted="ZW5jcnlwdGVk")),
            tool_calls=(
                ToolCall("toolu_1", "weather", '{"city":"Ghent","days":[1,2]}'),
                ToolCall("toolu_2", "clock", "{}"),
            ),
        ),
    )
    assert [json.loads(c.arguments) for c in streamed.choices[0].tool_calls] == [
        {"city": "Ghent", "days": [1, 2]},
        {},
    ]
    assert without_arguments(streamed) == without_arguments(whole)
    assert streamed.usage == whole.usage


def without_arguments(completion: Completion) -> tuple[object, ...]:
    choice = completion.choices[0]
    calls = [(tool.id, tool.name) for tool in choice.tool_calls]
    return choice.text, choice.finish_reason, choice.reasoning, choice.thinking, calls, completion.model


async def test_pieces_of_arguments_are_passed_on_one_by_one(provider, upstream):
    upstream.plays(Reply(message(WEATHER, stop_reason="tool_use")))

    pieces = [piece for delta in await deltas(provider) for piece in delta.tool_calls]

    arguments = json.dumps(WEATHER["input"])
    assert pieces[0] == ToolCallDelta(0, "toolu_1", "weather")
    assert [piece.arguments for piece in pieces[1:]] == [
        arguments[at : at + 4] for at in range(0, len(arguments), 4)
    ]


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
async def test_every_stop_reason_has_its_finish(provider, upstream, stop_reason, finish):
    upstream.plays(Reply(message(text("a"), stop_reason=stop_reason)))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].finish_reason == finish
    assert (await provider.complete(call(), 5.0)).choices[0].finish_reason == finish


async def test_the_stop_sequence_that_ended_an_answer_is_told(provider, upstream):
    upstream.plays(Reply(message(text("a"), stop_reason="stop_sequence", stop_sequence="END")))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].stop_sequence == "END"
    assert (await provider.complete(call(), 5.0)).choices[0].stop_sequence == "END"


async def test_usage_is_estimated_when_a_stream_tells_none(provider, upstream):
    bare = message(text("Hello world"), usage={})
    upstream.plays(Reply(bare))

    usage = (await deltas(provider))[-1].usage

    assert usage is not None
    assert usage.estimated


async def test_events_of_kinds_unknown_today_are_no_error(provider, upstream):
    frames = stream(message(text("Hi")))
    frames.insert(2, frame({"type": "novelty", "index": 0}))
    upstream.plays(Reply(frames=frames))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "Hi"


# --- the same format passes through -----------------------------------------------------------------------------


async def test_a_client_of_the_same_format_gets_every_event_as_it_came(provider, upstream):
    upstream.plays(Reply(RICH))

    raws = [delta.raw for delta in await deltas(provider, relayed())]

    sent = [f.split(b"data: ")[1].rstrip() for f in stream(RICH) if b"ping" not in f]
    assert raws == sent


async def test_a_client_of_the_same_format_gets_a_whole_message_as_it_came(provider, upstream):
    completion = await provider.complete(relayed(), 5.0)

    assert json.loads(completion.raw or b"") == Reply().answer


async def test_an_unchanged_request_is_sent_with_our_model_limit_and_stream(provider, upstream):
    tools = [{"type": "web_search_20250305", "name": "web_search"}]

    await deltas(provider, relayed(tools=tools, thinking={"type": "adaptive"}))

    assert upstream.requests[0].body == {
        "model": "claude-test-1",
        "max_tokens": 7,
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": tools,
        "thinking": {"type": "adaptive"},
    }


# --- requests on the wire ---------------------------------------------------------------------------------------


async def test_requests_carry_key_version_and_beta_features(upstream):
    provider = Anthropic(settings(f"{upstream.base_url}/v1/", options={"beta": "files-api-2025-04-14,more"}))

    await deltas(provider)
    await provider.close()

    seen = upstream.requests[0]
    assert seen.path == "/v1/messages"
    assert seen.headers["x-api-key"] == "sk-ant-secret"
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert seen.headers["anthropic-beta"] == "files-api-2025-04-14,more"
    assert "Authorization" not in seen.headers


async def test_tokens_of_a_call_are_counted_by_the_vendor(provider, upstream):
    chat = call(tools=(Tool("clock"),), temperature=0.5, max_tokens=9, stop=("x",))

    count = await provider.count_call_tokens(chat)

    assert count == 42
    assert upstream.requests[0].path == "/v1/messages/count_tokens"
    assert set(upstream.requests[0].body) == {"model", "messages", "tools"}


async def test_connections_are_used_again(provider, upstream):
    for _ in range(3):
        await deltas(provider)
        await provider.complete(call(), 5.0)

    assert len(upstream.sockets) == 1


async def test_the_kind_is_registered():
    assert PROVIDER_KINDS.get("anthropic") is Anthropic


async def test_a_base_url_without_a_scheme_is_refused():
    with pytest.raises(ConfigError, match="http"):
        Anthropic(settings("api.anthropic.com"))


# --- failures ---------------------------------------------------------------------------------------------------

ERRORS = [
    (400, "invalid_request_error", ProviderBadRequest),
    (401, "authentication_error", ProviderAuthFailed),
    (402, "billing_error", ProviderQuotaExhausted),
    (403, "permission_error", ProviderAuthFailed),
    (404, "not_found_error", ProviderModelMissing),
    (409, "conflict_error", ProviderError),
    (413, "request_too_large", ContextTooLong),
    (429, "rate_limit_error", ProviderRateLimited),
    (500, "api_error", ProviderError),
    (504, "timeout_error", ProviderTimeout),
    (529, "overloaded_error", ProviderError),
]


@pytest.mark.parametrize(("status", "kind", "error"), ERRORS)
async def test_every_documented_error_has_its_class(provider, upstream, status, kind, error):
    upstream.plays(Reply(status=status, error={"type": kind, "message": "the number 429 sk-ant-secret"}))

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderError) as caught:
            await ask()
        assert type(caught.value) is error
        assert caught.value.upstream_status == status
    assert "sk-ant" not in str(caught.value)


@pytest.mark.parametrize(("status", "kind", "error"), ERRORS)
async def test_every_documented_error_inside_a_stream_has_its_class(provider, upstream, status, kind, error):
    upstream.plays(Reply(frames=[*stream(message(text("Hello")))[:4], error_frame(kind)]))

    answer = provider.stream(call(), 5.0)
    first = await anext(answer)
    with pytest.raises(ProviderError) as caught:
        [delta async for delta in answer]

    assert first.text == "Hell"
    assert type(caught.value) is error
    assert caught.value.upstream_status == status


@pytest.mark.parametrize("status", [503, 502, 302])
async def test_an_error_that_is_no_json_is_known_by_its_status(provider, upstream, status):
    upstream.plays(Reply(status=status, error=None))

    with pytest.raises(ProviderError) as caught:
        await deltas(provider)

    assert type(caught.value) is ProviderError
    assert caught.value.retryable


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 208310 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length",
    ],
)
async def test_a_prompt_beyond_the_context_is_known_by_its_documented_message(provider, upstream, words):
    upstream.plays(Reply(status=400, error={"type": "invalid_request_error", "message": words}))

    with pytest.raises(ContextTooLong):
        await deltas(provider)


async def test_a_message_that_only_quotes_those_words_is_a_bad_request(provider, upstream):
    words = 'messages.0: the text "prompt is too long: 1 tokens" is not allowed'
    upstream.plays(Reply(status=400, error={"type": "invalid_request_error", "message": words}))

    with pytest.raises(ProviderBadRequest):
        await deltas(provider)


async def test_a_spend_limit_is_known_by_its_code(provider, upstream):
    error = {
        "type": "invalid_request_error",
        "message": "You have reached your specified API usage limits.",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    upstream.plays(Reply(status=400, error=error))

    with pytest.raises(ProviderQuotaExhausted):
        await deltas(provider)


async def test_the_wait_a_rate_limit_asks_for_is_passed_on(provider, upstream):
    error = {"type": "rate_limit_error", "message": "slow down"}
    upstream.plays(Reply(status=429, error=error, headers={"Retry-After": "7"}))

    with pytest.raises(ProviderRateLimited) as caught:
        await deltas(provider)

    assert caught.value.retry_after_s == 7.0


async def test_a_stream_cut_within_an_event_is_broken_wherever_it_is_cut(provider, upstream):
    for cut in range(len(stream(message(text("Hello"))))):
        upstream.plays(Reply(message(text("Hello")), cut_after=cut))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider)


async def test_a_stream_without_its_last_event_is_broken(provider, upstream):
    frames = stream(message(text("Hello")))
    upstream.plays(Reply(frames=frames, end_after=len(frames) - 1))

    with pytest.raises(ProviderStreamBroken, match="message_stop"):
        await deltas(provider)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {oops\n\n",
        b"data: [1]\n\n",
        b'data: {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "a"}}\n\n',
        b'data: {"type": "content_block_delta", "delta": {}}\n\n',
        b'data: {"type": "message_delta"}\n\n',
    ],
)
async def test_an_event_of_another_shape_breaks_the_stream(provider, upstream, bad):
    upstream.plays(Reply(frames=[bad, bad]))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await deltas(provider)


async def test_a_whole_message_of_another_shape_is_broken(provider, upstream):
    upstream.plays(Reply({"type": "message", "content": "Hi"}))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await provider.complete(call(), 5.0)


async def test_silence_within_an_answer_times_out(provider, upstream):
    upstream.plays(Reply(silent_after=4))

    with pytest.raises(ProviderTimeout):
        await deltas(provider, deadline_s=30.0)


async def test_silence_after_the_last_event_loses_nothing(provider, upstream):
    frames = stream(message(text("Hi")))
    upstream.plays(Reply(frames=frames, silent_after=len(frames)))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "Hi"


@pytest.mark.parametrize("whole", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_first_byte(provider, upstream, whole):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await (provider.complete(call(), 0.2) if whole else deltas(provider, deadline_s=0.2))


async def test_a_server_that_is_not_there_is_unreachable(unused_tcp_port):
    provider = Anthropic(settings(f"http://127.0.0.1:{unused_tcp_port}"))

    with pytest.raises(ProviderUnreachable) as caught:
        await deltas(provider)
    await provider.close()

    assert "sk-ant" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-ant-secret\n", "sk-ant-secret\u2019"])
async def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(upstream, key):
    provider = Anthropic(HttpProviderSettings("claude", upstream.base_url, Secret(key)))

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider)
    await provider.close()

    assert "sk-ant" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert upstream.requests == []


async def test_leaving_a_stream_hangs_up(provider, upstream):
    upstream.plays(Reply(silent_after=4))

    async with aclosing(provider.stream(call(), 30.0)) as answer:
        await anext(answer)

    await asyncio.wait_for(upstream.hung_up.wait(), 5.0)


@pytest.mark.parametrize("whole", [False, True])
async def test_cancelling_a_call_that_waits_hangs_up(provider, upstream, whole):
    upstream.plays(Reply(silent_before=True))
    waiting = asyncio.ensure_future(
        provider.complete(call(), 30.0) if whole else deltas(provider, None, 30.0)
    )
    while not upstream.requests:
        await asyncio.sleep(0)

    waiting.cancel()

    await asyncio.wait_for(upstream.hung_up.wait(), 5.0)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_client_given_is_used(upstream):
    client = PooledHttpClient()
    provider = Anthropic(settings(upstream.base_url), client)

    await deltas(provider)
    await provider.close()

    assert len(upstream.requests) == 1
