"""The Bedrock provider against a local server of the documented wire format that checks every signature."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

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
from mainstay.models.providers.bedrock import Bedrock
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Choice, Thinking, ToolCall, ToolCallDelta
from support.anthropic_server import Reply
from support.bedrock_server import (
    BEARER,
    CREDENTIALS,
    REGION,
    BedrockServer,
    answer,
    event,
    exception,
    packed,
    stream,
)

HELLO = answer({"text": "Hello world"})
REASONED = {"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": "sig=="}}}
REDACTED = {"reasoningContent": {"redactedContent": "ZW5jcnlwdGVk"}}
WEATHER = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ghent"}}}
CLOCK = {"toolUse": {"toolUseId": "t2", "name": "clock", "input": {}}}
RICH = answer(REASONED, REDACTED, {"text": "I ask."}, WEATHER, CLOCK, stopReason="tool_use")
KEYS = {
    "access_key_id": CREDENTIALS.access_key_id,
    "secret_access_key": CREDENTIALS.secret_access_key,
    "session_token": CREDENTIALS.session_token,
}


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[BedrockServer]:
    async with BedrockServer() as server:
        server.plays(Reply(HELLO))
        yield server


@pytest_asyncio.fixture
async def provider(upstream: BedrockServer) -> AsyncIterator[Bedrock]:
    provider = make(upstream.base_url)
    yield provider
    await provider.close()


def make(
    base_url: str, environment: Mapping[str, str] | None = None, api_key: str | None = None, **options: object
) -> Bedrock:
    """With the server's credentials, unless others are given."""
    if environment is None and api_key is None:
        options = {**KEYS, **options}
    settings = HttpProviderSettings(
        "aws",
        base_url,
        Secret(api_key) if api_key else None,
        connect_timeout_s=2.0,
        idle_timeout_s=0.3,
        options={"region": REGION, **options},  # type: ignore[dict-item]
    )
    return Bedrock(settings, environment=environment or {})


def call(**more: object) -> ChatCall:
    return ChatCall(**{"model": "m.one-v1:0", "messages": (ChatMessage("user", "Hi"),), **more})  # type: ignore[arg-type]


async def deltas(provider: Bedrock, chat: ChatCall | None = None, deadline_s: float = 5.0) -> list[Delta]:
    return [delta async for delta in provider.stream(chat or call(), deadline_s)]


# --- answers ----------------------------------------------------------------------------------------------------


async def test_an_answer_streams_with_its_finish_and_usage(provider, upstream):
    seen = await deltas(provider)

    assert [delta.text for delta in seen if delta.text] == ["Hell", "o wo", "rld"]
    assert [delta.finish_reason for delta in seen if delta.finish_reason] == ["stop"]
    assert seen[-1].usage == Usage(
        input_tokens=37,
        output_tokens=9,
        cached_input_tokens=20,
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
            reasoning="Let me see.",
            thinking=(Thinking("Let me see.", "sig=="), Thinking(encrypted="ZW5jcnlwdGVk")),
            tool_calls=(ToolCall("t1", "weather", '{"city":"Ghent"}'), ToolCall("t2", "clock", "{}")),
        ),
    )
    calls = [(c.id, c.name, json.loads(c.arguments)) for c in streamed.choices[0].tool_calls]
    assert calls == [("t1", "weather", {"city": "Ghent"}), ("t2", "clock", {})]
    assert streamed.choices[0].thinking == whole.choices[0].thinking
    assert streamed.choices[0].finish_reason == "tool_calls"
    assert streamed.usage == whole.usage


async def test_pieces_of_arguments_are_passed_on_one_by_one(provider, upstream):
    upstream.plays(Reply(answer(WEATHER, stopReason="tool_use")))

    pieces = [piece for delta in await deltas(provider) for piece in delta.tool_calls]

    assert pieces[0] == ToolCallDelta(0, "t1", "weather")
    assert [piece.arguments for piece in pieces[1:]] == ['{"ci', 'ty":', ' "Gh', 'ent"', "}"]


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
async def test_every_stop_reason_has_its_finish(provider, upstream, stop_reason, finish):
    upstream.plays(Reply(answer({"text": "a"}, stopReason=stop_reason)))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].finish_reason == finish
    assert (await provider.complete(call(), 5.0)).choices[0].finish_reason == finish


@pytest.mark.parametrize("stop_reason", ["malformed_model_output", "malformed_tool_use"])
async def test_an_output_that_made_no_sense_is_no_success(provider, upstream, stop_reason):
    upstream.plays(Reply(answer({"text": "a"}, stopReason=stop_reason)))

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderStreamBroken, match=stop_reason):
            await ask()


async def test_usage_is_estimated_when_a_stream_tells_none(provider, upstream):
    bare = {name: value for name, value in HELLO.items() if name != "usage"}
    upstream.plays(Reply(bare))

    usage = (await deltas(provider))[-1].usage

    assert usage is not None
    assert usage.estimated


async def test_events_of_kinds_unknown_today_are_no_error(provider, upstream):
    upstream.plays(Reply(frames=[event("novelty", {}), *stream(HELLO)]))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "Hello world"


# --- addresses and credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "escaped"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        (
            "arn:aws:bedrock:eu-test-1:123456789012:inference-profile/eu.m",
            "arn%3Aaws%3Abedrock%3Aeu-test-1%3A123456789012%3Ainference-profile%2Feu.m",
        ),
    ],
)
async def test_model_ids_and_arns_are_escaped_as_they_are_signed(provider, upstream, model, escaped):
    await deltas(provider, call(model=model))
    await provider.complete(call(model=model), 5.0)

    assert [seen.path for seen in upstream.requests] == [
        f"/model/{escaped}/converse-stream",
        f"/model/{escaped}/converse",
    ]


@pytest.mark.parametrize(
    "environment",
    [
        {
            "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_access_key.reveal(),
            "AWS_SESSION_TOKEN": "token/+==",
        },
        {"AWS_BEARER_TOKEN_BEDROCK": BEARER, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
    ],
)
async def test_credentials_come_from_the_environment(upstream, environment):
    provider = make(upstream.base_url, environment)

    await deltas(provider)
    await provider.close()


async def test_an_api_key_is_a_bearer_token_and_comes_before_the_environment(upstream):
    provider = make(upstream.base_url, {"AWS_BEARER_TOKEN_BEDROCK": "other"}, BEARER)

    await deltas(provider)
    await provider.close()

    assert upstream.requests[0].headers["Authorization"] == f"Bearer {BEARER}"
    assert "X-Amz-Date" not in upstream.requests[0].headers


async def test_wrong_credentials_are_refused_without_being_shown(upstream):
    provider = make(upstream.base_url, secret_access_key="wrong-secret")

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider)
    await provider.close()

    assert "wrong-secret" not in str(caught.value)
    assert CREDENTIALS.access_key_id not in str(caught.value)


def test_without_credentials_or_region_it_is_not_made():
    with pytest.raises(ConfigError, match="no AWS credentials"):
        make("http://127.0.0.1:1", {"AWS_ACCESS_KEY_ID": "half"})
    with pytest.raises(ConfigError, match="region"):
        Bedrock(HttpProviderSettings("aws", "", Secret("key")), environment={})


@pytest.mark.parametrize(
    ("base_url", "region", "environment", "expected"),
    [
        ("", "us-east-1", {"AWS_REGION": "eu-west-1"}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ("", None, {"AWS_DEFAULT_REGION": "eu-west-1"}, "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ("", "cn-north-1", {}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com", None, {}, None),
    ],
)
async def test_the_endpoint_follows_from_the_region(base_url, region, environment, expected):
    class Recorder:
        url = ""
        headers: Mapping[str, str] = {}

        async def request(self, method: str, url: str, **more: object) -> object:
            Recorder.url = url
            raise asyncio.CancelledError

        async def close(self) -> None: ...

    options = {**KEYS, **({"region": region} if region else {})}
    settings = HttpProviderSettings("aws", base_url, options=options)  # type: ignore[arg-type]
    provider = Bedrock(settings, Recorder(), environment)  # type: ignore[arg-type]

    with pytest.raises(asyncio.CancelledError):
        await provider.complete(call(model="m"), 5.0)

    assert Recorder.url == f"{expected or base_url}/model/m/converse"


async def test_the_operators_guardrail_applies_and_a_caller_cannot_replace_it(upstream):
    provider = make(upstream.base_url, guardrail_id="g1", guardrail_version="3")

    await deltas(provider)
    with pytest.raises(ProviderBadRequest, match="guardrailConfig"):
        await deltas(provider, call(extra={"guardrailConfig": {"guardrailIdentifier": "lax"}}))
    await provider.close()

    assert upstream.requests[0].body["guardrailConfig"] == {
        "guardrailIdentifier": "g1",
        "guardrailVersion": "3",
    }


async def test_the_kind_is_registered():
    assert PROVIDER_KINDS.get("bedrock") is Bedrock


async def test_connections_are_used_again(provider, upstream):
    for _ in range(3):
        await deltas(provider)
        await provider.complete(call(), 5.0)

    assert len(upstream.sockets) == 1


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (400, "ValidationException", ProviderBadRequest),
        (400, "ServiceQuotaExceededException", ProviderQuotaExhausted),
        (403, "AccessDeniedException", ProviderAuthFailed),
        (403, "UnrecognizedClientException", ProviderAuthFailed),
        (403, "ExpiredTokenException", ProviderAuthFailed),
        (404, "ResourceNotFoundException", ProviderModelMissing),
        (408, "ModelTimeoutException", ProviderTimeout),
        (424, "ModelErrorException", ProviderError),
        (429, "ThrottlingException", ProviderRateLimited),
        (429, "ModelNotReadyException", ProviderError),
        (500, "InternalServerException", ProviderError),
        (503, "ServiceUnavailableException", ProviderError),
        (403, None, ProviderAuthFailed),
        (418, None, ProviderBadRequest),
        (502, None, ProviderError),
    ],
)
async def test_every_documented_error_has_its_class(provider, upstream, status, name, error):
    upstream.plays(Reply(status=status, error={"name": name, "message": "the number 429"}))

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderError) as caught:
            await ask()
        assert type(caught.value) is error
        assert caught.value.upstream_status == status


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("internalServerException", 500, ProviderError),
        ("modelStreamErrorException", 424, ProviderError),
        ("validationException", 400, ProviderBadRequest),
        ("throttlingException", 429, ProviderRateLimited),
        ("serviceUnavailableException", 503, ProviderError),
    ],
)
async def test_every_exception_inside_a_stream_has_its_class(provider, upstream, kind, status, error):
    upstream.plays(Reply(frames=[*stream(HELLO)[:2], exception(kind)]))

    opened = provider.stream(call(), 5.0)
    first = await anext(opened)
    with pytest.raises(ProviderError) as caught:
        [delta async for delta in opened]

    assert first.text == "Hell"
    assert type(caught.value) is error
    assert caught.value.upstream_status == status


async def test_an_unmodelled_error_inside_a_stream_is_told(provider, upstream):
    headers = {":message-type": "error", ":error-code": "internalFailure", ":error-message": "it broke"}
    upstream.plays(Reply(frames=[packed(headers, b"")]))

    with pytest.raises(ProviderError, match="it broke"):
        await deltas(provider)


@pytest.mark.parametrize(
    "words",
    [
        "Input is too long for requested model.",
        "The model returned the following errors: prompt is too long: 208310 tokens > 200000 maximum",
    ],
)
async def test_a_prompt_beyond_the_context_is_known_by_its_documented_message(provider, upstream, words):
    upstream.plays(Reply(status=400, error={"name": "ValidationException", "message": words}))

    with pytest.raises(ContextTooLong):
        await deltas(provider)


async def test_the_wait_a_throttling_asks_for_is_passed_on(provider, upstream):
    upstream.plays(Reply(status=429, error={"name": "ThrottlingException"}, headers={"Retry-After": "3"}))

    with pytest.raises(ProviderRateLimited) as caught:
        await deltas(provider)

    assert caught.value.retry_after_s == 3.0


async def test_a_stream_cut_within_an_event_is_broken_wherever_it_is_cut(provider, upstream):
    last = next(i for i, f in enumerate(stream(HELLO)) if b"messageStop" in f)
    for cut in range(last + 1):
        upstream.plays(Reply(HELLO, cut_after=cut))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider)


async def test_a_stream_that_ends_too_early_is_broken(provider, upstream):
    for frames in ([stream(HELLO)[1]], [stream(HELLO)[1][:-3]], [b""]):
        upstream.plays(Reply(frames=frames, end_after=1))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider)


async def test_a_corrupt_event_breaks_the_stream(provider, upstream):
    frames = stream(HELLO)
    frames[3] = frames[3][:-9] + b"\x00" + frames[3][-8:]
    upstream.plays(Reply(frames=frames))

    with pytest.raises(ProviderStreamBroken, match="checksum"):
        await deltas(provider)


@pytest.mark.parametrize(
    "bad",
    [
        packed({":message-type": "event", ":event-type": "contentBlockDelta"}, b"{oops"),
        packed({":message-type": "event", ":event-type": "contentBlockDelta"}, b"[1]"),
        event("contentBlockDelta", {"contentBlockIndex": 0}),
        event("contentBlockDelta", {"delta": {"text": "a"}}),
        event(
            "contentBlockDelta",
            {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "%"}}},
        ),
    ],
)
async def test_an_event_of_another_shape_breaks_the_stream(provider, upstream, bad):
    upstream.plays(Reply(frames=[bad]))

    with pytest.raises(ProviderStreamBroken, match="cannot use"):
        await deltas(provider)


@pytest.mark.parametrize("body", [{}, {"output": {"message": {"content": ["a"]}}}, {"output": []}])
async def test_a_whole_answer_of_another_shape_is_broken(provider, upstream, body):
    upstream.plays(Reply(body))

    with pytest.raises(ProviderStreamBroken, match="cannot use"):
        await provider.complete(call(), 5.0)


async def test_silence_within_an_answer_times_out(provider, upstream):
    upstream.plays(Reply(HELLO, silent_after=2))

    with pytest.raises(ProviderTimeout):
        await deltas(provider, deadline_s=30.0)


async def test_silence_after_the_last_event_loses_nothing(provider, upstream):
    upstream.plays(Reply(HELLO, silent_after=len(stream(HELLO))))

    assert (await deltas(provider))[-1].usage is not None


@pytest.mark.parametrize("whole", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_first_byte(provider, upstream, whole):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await (provider.complete(call(), 0.2) if whole else deltas(provider, deadline_s=0.2))


async def test_a_server_that_is_not_there_is_unreachable(unused_tcp_port):
    provider = make(f"http://127.0.0.1:{unused_tcp_port}")

    with pytest.raises(ProviderUnreachable):
        await deltas(provider)
    await provider.close()


async def test_leaving_a_stream_hangs_up(provider, upstream):
    upstream.plays(Reply(HELLO, silent_after=3))

    async with aclosing(provider.stream(call(), 30.0)) as opened:
        await anext(opened)

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
