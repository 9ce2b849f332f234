"""The Bedrock provider against a local server of the documented wire format that checks every signature."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from models_adapters import BEDROCK, BEDROCK_HELLO, Adapter, broken_off, deltas, failures

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
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
)
from mainstay.models.collect import collect
from mainstay.models.providers.bedrock import Bedrock
from mainstay.models.providers.registry import HttpProviderSettings
from mainstay.models.types import Choice, Thinking, ToolCall, ToolCallDelta
from support.anthropic_server import Reply
from support.bedrock_server import (
    BEARER,
    CREDENTIALS,
    REGION,
    answer,
    event,
    exception,
    packed,
    stream,
)

REASONED = {"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": "sig=="}}}
REDACTED = {"reasoningContent": {"redactedContent": "ZW5jcnlwdGVk"}}
WEATHER = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ghent"}}}
CLOCK = {"toolUse": {"toolUseId": "t2", "name": "clock", "input": {}}}
RICH = answer(REASONED, REDACTED, {"text": "I ask."}, WEATHER, CLOCK, stopReason="tool_use")
call = BEDROCK.call


@pytest.fixture
def adapter() -> Adapter:
    return BEDROCK


def make(
    base_url: str, environment: Mapping[str, str] | None = None, api_key: str | None = None, **options: object
) -> Bedrock:
    """With the server's credentials, unless others are given."""
    if environment is None and api_key is None:
        options = {**BEDROCK.settings.options, **options}
    settings = replace(
        BEDROCK.settings,
        base_url=base_url,
        api_key=Secret(api_key) if api_key else None,
        options={"region": REGION, **options},  # type: ignore[dict-item]
    )
    return Bedrock(settings, environment=environment or {})


# --- answers ----------------------------------------------------------------------------------------------------


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

    pieces = [piece for delta in await deltas(provider, call()) for piece in delta.tool_calls]

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

    for failure in await failures(provider, call()):
        assert type(failure) is ProviderStreamBroken
        assert stop_reason in str(failure)


async def test_events_of_kinds_unknown_today_are_no_error(provider, upstream):
    upstream.plays(Reply(frames=[event("novelty", {}), *stream(BEDROCK_HELLO)]))

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

    await deltas(provider, call())
    await provider.close()


async def test_an_api_key_is_a_bearer_token_and_comes_before_the_environment(upstream):
    provider = make(upstream.base_url, {"AWS_BEARER_TOKEN_BEDROCK": "other"}, BEARER)

    await deltas(provider, call())
    await provider.close()

    assert upstream.requests[0].headers["Authorization"] == f"Bearer {BEARER}"
    assert "X-Amz-Date" not in upstream.requests[0].headers


async def test_wrong_credentials_are_refused_without_being_shown(upstream):
    provider = make(upstream.base_url, secret_access_key="wrong-secret")

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider, call())
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

    keys = {name: value for name, value in BEDROCK.settings.options.items() if name != "region"}
    options = {**keys, **({"region": region} if region else {})}
    settings = HttpProviderSettings("aws", base_url, options=options)  # type: ignore[arg-type]
    provider = Bedrock(settings, Recorder(), environment)  # type: ignore[arg-type]

    with pytest.raises(asyncio.CancelledError):
        await provider.complete(call(model="m"), 5.0)

    assert Recorder.url == f"{expected or base_url}/model/m/converse"


async def test_the_operators_guardrail_applies_and_a_caller_cannot_replace_it(upstream):
    provider = make(upstream.base_url, guardrail_id="g1", guardrail_version="3")

    await deltas(provider, call())
    with pytest.raises(ProviderBadRequest, match="guardrailConfig"):
        await deltas(provider, call(extra={"guardrailConfig": {"guardrailIdentifier": "lax"}}))
    await provider.close()

    assert upstream.requests[0].body["guardrailConfig"] == {
        "guardrailIdentifier": "g1",
        "guardrailVersion": "3",
    }


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

    for failure in await failures(provider, call()):
        assert type(failure) is error
        assert failure.upstream_status == status


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
    upstream.plays(Reply(frames=[*stream(BEDROCK_HELLO)[:2], exception(kind)]))

    said, failure = await broken_off(provider, call())

    assert said == "Hell"
    assert type(failure) is error
    assert failure.upstream_status == status


async def test_an_unmodelled_error_inside_a_stream_is_told(provider, upstream):
    headers = {":message-type": "error", ":error-code": "internalFailure", ":error-message": "it broke"}
    upstream.plays(Reply(frames=[packed(headers, b"")]))

    with pytest.raises(ProviderError, match="it broke"):
        await deltas(provider, call())


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
        await deltas(provider, call())


async def test_a_stream_that_ends_too_early_is_broken(provider, upstream):
    for frames in ([stream(BEDROCK_HELLO)[1]], [stream(BEDROCK_HELLO)[1][:-3]], [b""]):
        upstream.plays(Reply(frames=frames, end_after=1))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider, call())


async def test_a_corrupt_event_breaks_the_stream(provider, upstream):
    frames = stream(BEDROCK_HELLO)
    frames[3] = frames[3][:-9] + b"\x00" + frames[3][-8:]
    upstream.plays(Reply(frames=frames))

    with pytest.raises(ProviderStreamBroken, match="checksum"):
        await deltas(provider, call())


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
        await deltas(provider, call())


@pytest.mark.parametrize("body", [{}, {"output": {"message": {"content": ["a"]}}}, {"output": []}])
async def test_a_whole_answer_of_another_shape_is_broken(provider, upstream, body):
    upstream.plays(Reply(body))

    with pytest.raises(ProviderStreamBroken, match="cannot use"):
        await provider.complete(call(), 5.0)
