"""How failures of Gemini are told: refusals, errors within a stream, answers that make no sense."""

from __future__ import annotations

import pytest
from models_adapters import GEMINI, Adapter, broken_off, deltas, failures

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
from support.anthropic_server import Reply
from support.gemini_server import answer, frame, status_error, stream, text

call = GEMINI.call


@pytest.fixture
def adapter() -> Adapter:
    return GEMINI


ERRORS = [
    (400, "INVALID_ARGUMENT", ProviderBadRequest),
    (400, "FAILED_PRECONDITION", ProviderBadRequest),
    (400, "OUT_OF_RANGE", ProviderBadRequest),
    (401, "UNAUTHENTICATED", ProviderAuthFailed),
    (403, "PERMISSION_DENIED", ProviderAuthFailed),
    (404, "NOT_FOUND", ProviderModelMissing),
    (409, "ABORTED", ProviderError),
    (429, "RESOURCE_EXHAUSTED", ProviderRateLimited),
    (499, "CANCELLED", ProviderError),
    (500, "INTERNAL", ProviderError),
    (500, "UNKNOWN", ProviderError),
    (501, "UNIMPLEMENTED", ProviderBadRequest),
    (503, "UNAVAILABLE", ProviderError),
    (504, "DEADLINE_EXCEEDED", ProviderTimeout),
]


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(("status", "word", "error"), ERRORS)
async def test_every_documented_error_has_its_class(provider, upstream, status, word, error, array):
    upstream.drops_sse = array
    upstream.plays(Reply(status=status, error=status_error(status, word, "the number 429 AIza-secret")))

    for failure in await failures(provider, call()):
        assert type(failure) is error
        assert (failure.upstream_status, failure.upstream_code) == (status, word)
        assert "AIza" not in str(failure)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(("status", "word", "error"), ERRORS)
async def test_every_documented_error_inside_a_stream_has_its_class(
    provider, upstream, status, word, error, array
):
    upstream.drops_sse = array
    told = frame({"error": status_error(status, word)})
    upstream.plays(Reply(frames=[*stream(answer(text("Hello world")))[:1], told]))

    said, failure = await broken_off(provider, call())

    assert said == "Hell"
    assert type(failure) is error
    assert failure.upstream_status == status


@pytest.mark.parametrize(
    ("status", "error"),
    [(402, ProviderQuotaExhausted), (408, ProviderTimeout), (502, ProviderError), (302, ProviderError)],
)
async def test_an_error_without_a_status_word_is_known_by_its_number(provider, upstream, status, error):
    upstream.plays(Reply(status=status))

    with pytest.raises(ProviderError) as caught:
        await deltas(provider, call())

    assert type(caught.value) is error


async def test_a_wrong_key_is_known_by_its_reason_though_its_status_is_400(provider, upstream):
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    upstream.plays(Reply(status=400, error=status_error(400, "INVALID_ARGUMENT", "AIza-secret", info)))

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider, call())

    assert "AIza" not in str(caught.value)


@pytest.mark.parametrize(("delay", "seconds"), [("17s", 17.0), ("0.25s", 0.25), ("soon", 7.0), ("-1s", 7.0)])
async def test_the_wait_a_rate_limit_asks_for_is_passed_on(provider, upstream, delay, seconds):
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = status_error(429, "RESOURCE_EXHAUSTED", "slow down", {"@type": "other"}, info)
    upstream.plays(Reply(status=429, error=error, headers={"Retry-After": "7"}))

    with pytest.raises(ProviderRateLimited) as caught:
        await deltas(provider, call())

    assert caught.value.retry_after_s == seconds


async def test_a_prompt_beyond_the_context_is_known_by_its_documented_message(provider, upstream):
    words = "The input token count (1300000) exceeds the maximum number of tokens allowed (1048576)."
    upstream.plays(Reply(status=400, error=status_error(400, "INVALID_ARGUMENT", words)))

    with pytest.raises(ContextTooLong):
        await deltas(provider, call())


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {oops\n\n",
        b"data: [1]\n\n",
        frame({"candidates": {"0": {}}}),
        frame({"candidates": [{"index": []}]}),
        frame({"candidates": [{"content": {"parts": [{"text": 5}]}}]}),
        frame({"candidates": [{"content": {"parts": ["Hi"]}}]}),
        frame({"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}),
        frame({"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png"}}]}}]}),
    ],
)
async def test_a_chunk_of_another_shape_breaks_the_stream(provider, upstream, bad):
    upstream.plays(Reply(frames=[bad]))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await deltas(provider, call())


@pytest.mark.parametrize("whole", [{}, answer(text("Hi"), finish=None)])
async def test_a_whole_answer_without_an_end_is_broken(provider, upstream, whole):
    upstream.plays(Reply(whole))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await provider.complete(call(), 5.0)
