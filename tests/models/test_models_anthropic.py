"""The Anthropic provider against a local server of the documented wire format, itself read by the official SDK."""

from __future__ import annotations

import json
from dataclasses import replace

import anthropic
import pytest
from models_adapters import ANTHROPIC, Adapter, broken_off, deltas, failures

from mainstay.models import (
    ChatCall,
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
)
from mainstay.models.collect import collect
from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.providers.anthropic import Anthropic
from mainstay.models.types import Choice, Completion, Thinking, Tool, ToolCall, ToolCallDelta
from support.anthropic_server import Reply, error_frame, frame, message, stream, text

THINKING = {"type": "thinking", "thinking": "Let me see, yes.", "signature": "sig=="}
REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}
WEATHER = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ghent", "days": [1, 2]}}
CLOCK = {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}
RICH = message(THINKING, REDACTED, text("I ask."), WEATHER, CLOCK, stop_reason="tool_use")
call = ANTHROPIC.call


@pytest.fixture
def adapter() -> Adapter:
    return ANTHROPIC


def relayed(**more: object) -> ChatCall:
    source = {"model": "app", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more}
    return call(source=source, source_format="anthropic.messages", max_tokens=7)


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

    pieces = [piece for delta in await deltas(provider, call()) for piece in delta.tool_calls]

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
    options = {"beta": "files-api-2025-04-14,more"}
    provider = ANTHROPIC.make(f"{upstream.base_url}/v1/", options=options)

    await deltas(provider, call())
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

    for failure in await failures(provider, call()):
        assert type(failure) is error
        assert failure.upstream_status == status
        assert "sk-ant" not in str(failure)


@pytest.mark.parametrize(("status", "kind", "error"), ERRORS)
async def test_every_documented_error_inside_a_stream_has_its_class(provider, upstream, status, kind, error):
    upstream.plays(Reply(frames=[*stream(message(text("Hello")))[:4], error_frame(kind)]))

    said, failure = await broken_off(provider, call())

    assert said == "Hell"
    assert type(failure) is error
    assert failure.upstream_status == status


@pytest.mark.parametrize("status", [503, 502, 302])
async def test_an_error_without_a_type_is_known_by_its_status(provider, upstream, status):
    upstream.plays(Reply(status=status, error=None))

    with pytest.raises(ProviderError) as caught:
        await deltas(provider, call())

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
        await deltas(provider, call())


async def test_a_message_that_only_quotes_those_words_is_a_bad_request(provider, upstream):
    words = 'messages.0: the text "prompt is too long: 1 tokens" is not allowed'
    upstream.plays(Reply(status=400, error={"type": "invalid_request_error", "message": words}))

    with pytest.raises(ProviderBadRequest):
        await deltas(provider, call())


async def test_a_spend_limit_is_known_by_its_code(provider, upstream):
    error = {
        "type": "invalid_request_error",
        "message": "You have reached your specified API usage limits.",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    upstream.plays(Reply(status=400, error=error))

    with pytest.raises(ProviderQuotaExhausted):
        await deltas(provider, call())


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
        await deltas(provider, call())


async def test_a_whole_message_of_another_shape_is_broken(provider, upstream):
    upstream.plays(Reply({"type": "message", "content": "Hi"}))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await provider.complete(call(), 5.0)


async def test_a_client_given_is_used(upstream):
    client = PooledHttpClient()
    provider = Anthropic(replace(ANTHROPIC.settings, base_url=upstream.base_url), client)

    await deltas(provider, call())

    assert list(client.origins()) == [upstream.base_url]
    await provider.close()
