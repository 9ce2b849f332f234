"""The Gemini provider against a local server of the documented wire format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
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
from mainstay.models.providers.gemini import Gemini
from mainstay.models.providers.gemini_answers import decode_usage
from mainstay.models.providers.gemini_chunks import JsonArrayReader
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Choice, Completion, EmbeddingProvider, Thinking, Tool, ToolCall
from support.anthropic_server import Reply
from support.gemini_server import GeminiServer, answer, candidate, frame, status_error, stream, text

HEAVY = text("Let me see, yes.", thought=True, thoughtSignature="dGhvdWdodA==")
LIGHT = text("Both, then.", thought=True)
WEATHER = {
    "functionCall": {"id": "fc_1", "name": "weather", "args": {"city": "Ghent", "days": [1, 2]}},
    "thoughtSignature": "c2lnbmVk",
}
CLOCK = {"functionCall": {"id": "fc_2", "name": "clock", "args": {}}}
RICH = answer(HEAVY, LIGHT, text("I ask."), WEATHER, CLOCK)
EXPECTED = Choice(
    text="I ask.",
    finish_reason="tool_calls",
    reasoning="Let me see, yes.Both, then.",
    thinking=(
        Thinking("Let me see, yes.", "gemini:thought:dGhvdWdodA=="),
        Thinking("Both, then."),
        Thinking("", "gemini:call=fc_1:c2lnbmVk"),
    ),
    tool_calls=(
        ToolCall("fc_1", "weather", '{"city":"Ghent","days":[1,2]}'),
        ToolCall("fc_2", "clock", "{}"),
    ),
)


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        server.plays(Reply(answer(text("Hello world"))))
        yield server


@pytest_asyncio.fixture
async def provider(upstream: GeminiServer) -> AsyncIterator[Gemini]:
    provider = Gemini(settings(upstream.base_url))
    yield provider
    await provider.close()


def settings(base_url: str, **options: str | Secret) -> HttpProviderSettings:
    return HttpProviderSettings(
        "gemini", base_url, Secret("AIza-secret"), connect_timeout_s=2.0, idle_timeout_s=0.3, options=options
    )


def call(**more: object) -> ChatCall:
    return ChatCall(**{"model": "gemini-test", "messages": (ChatMessage("user", "Hi"),), **more})  # type: ignore[arg-type]


async def deltas(provider: Gemini, chat: ChatCall | None = None, deadline_s: float = 5.0) -> list[Delta]:
    return [delta async for delta in provider.stream(chat or call(), deadline_s)]


# --- answers ----------------------------------------------------------------------------------------------------


async def test_an_answer_streams_with_its_finish_and_then_its_usage(provider, upstream):
    seen = await deltas(provider)

    assert [delta.text for delta in seen if delta.text] == ["Hell", "o wo", "rld"]
    assert [delta.finish_reason for delta in seen if delta.finish_reason] == ["stop"]
    assert seen[0].model == "gemini-test-001"
    assert seen[-1].usage == Usage(30, 9, cached_input_tokens=20, reasoning_tokens=5)


async def test_a_whole_answer_is_asked_without_a_stream(provider, upstream):
    whole = await provider.complete(call(), 5.0)

    assert whole == Completion(
        (Choice(text="Hello world"),),
        Usage(30, 9, cached_input_tokens=20, reasoning_tokens=5),
        "gemini-test-001",
    )
    assert upstream.requests[0].path == "/v1beta/models/gemini-test:generateContent"


@pytest.mark.parametrize("array", [False, True])
async def test_a_streamed_and_a_whole_answer_are_the_same(provider, upstream, array):
    upstream.plays(Reply(RICH))
    upstream.drops_sse = array

    streamed = await collect(provider.stream(call(), 5.0))
    whole = await provider.complete(call(), 5.0)

    assert whole.choices == (EXPECTED,)
    assert streamed == whole


async def test_calls_without_an_id_get_one_each(provider, upstream):
    bare = [{"functionCall": {"name": name}} for name in ("weather", "weather")]
    upstream.plays(Reply(answer(*bare)))

    choice = (await collect(provider.stream(call(), 5.0))).choices[0]

    assert [made.name for made in choice.tool_calls] == ["weather", "weather"]
    assert len({made.id for made in choice.tool_calls}) == 2
    assert [made.arguments for made in choice.tool_calls] == ["{}", "{}"]


async def test_a_signature_may_come_on_a_text_or_on_an_empty_part_after_it(provider, upstream):
    upstream.plays(
        Reply(answer(text("Hi", thoughtSignature="b24="))),
        Reply(answer(text("Hi"), text("", thoughtSignature="ZW5k"))),
    )

    on_text = (await collect(provider.stream(call(), 5.0))).choices[0]
    after = (await collect(provider.stream(call(), 5.0))).choices[0]

    assert on_text.thinking == (Thinking("", "gemini:text:b24="),)
    assert after.thinking == (Thinking("", "gemini:end:ZW5k"),)
    assert on_text.text == after.text == "Hi"


async def test_several_candidates_are_several_choices(provider, upstream):
    both = [candidate(text("One")), candidate(text("Two longer"), index=1, finish="MAX_TOKENS")]
    upstream.plays(Reply({**RICH, "candidates": both}))

    streamed = await collect(provider.stream(call(n=2), 5.0))
    whole = await provider.complete(call(n=2), 5.0)

    assert streamed.choices == whole.choices == (Choice("One"), Choice("Two longer", "length"))
    assert json.loads(upstream.requests[0].data)["generationConfig"]["candidateCount"] == 2


async def test_logprobs_come_as_openais_items(provider, upstream):
    chosen = [{"token": "Hé", "tokenId": 1, "logProbability": -0.25}]
    top = [{"candidates": [*chosen, {"token": "Ho", "tokenId": 2, "logProbability": -1.5}]}]
    result = {"chosenCandidates": chosen, "topCandidates": top}
    upstream.plays(Reply({**RICH, "candidates": [candidate(text("Hé"), logprobsResult=result)]}))

    choice = (await collect(provider.stream(call(logprobs=True, top_logprobs=2), 5.0))).choices[0]

    assert choice.logprobs == (
        {
            "token": "Hé",
            "logprob": -0.25,
            "bytes": [72, 195, 169],
            "top_logprobs": [
                {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]},
                {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]},
            ],
        },
    )


FINISHES = [
    ("STOP", "stop"),
    ("MAX_TOKENS", "length"),
    *((reason, "content_filter") for reason in ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST")),
    *((reason, "content_filter") for reason in ("PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR")),
    ("A_NEW_REASON", "stop"),
]


@pytest.mark.parametrize(("reason", "told"), FINISHES)
async def test_every_finish_reason_has_its_counterpart(provider, upstream, reason, told):
    upstream.plays(Reply(answer(finish=reason)))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].finish_reason == told
    assert (await provider.complete(call(), 5.0)).choices[0].finish_reason == told


async def test_calls_cut_by_the_token_limit_are_told_as_cut(provider, upstream):
    upstream.plays(Reply(answer(WEATHER, finish="MAX_TOKENS")))

    assert (await provider.complete(call(), 5.0)).choices[0].finish_reason == "length"


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
async def test_an_answer_that_gemini_calls_invalid_is_broken(provider, upstream, reason):
    upstream.plays(Reply(answer(text("print(x)"), finish=reason)))

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderStreamBroken) as caught:
            await ask()
        assert caught.value.upstream_code == reason
        assert caught.value.retryable


async def test_a_signature_that_is_missing_is_the_requests_fault(provider, upstream):
    upstream.plays(Reply(answer(finish="MISSING_THOUGHT_SIGNATURE")))

    with pytest.raises(ProviderBadRequest, match="thought signature"):
        await deltas(provider)


async def test_a_blocked_prompt_is_an_answer_that_was_filtered(provider, upstream):
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
        "modelVersion": "gemini-test-001",
    }
    upstream.plays(Reply(blocked))

    streamed = await collect(provider.stream(call(), 5.0))

    assert streamed.choices == (Choice(finish_reason="content_filter"),)
    assert streamed.usage == Usage(7, 0)
    assert await provider.complete(call(), 5.0) == streamed


# --- usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"promptTokenCount": 9, "totalTokenCount": 9}, Usage(9, 0)),
        (  # thoughts beside what was said
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 4,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 16,
            },
            Usage(9, 7, reasoning_tokens=3),
        ),
        (  # thoughts within it
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 7,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 16,
            },
            Usage(9, 7, reasoning_tokens=3),
        ),
        (  # thoughts in the total alone
            {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 16},
            Usage(9, 7, reasoning_tokens=3),
        ),
        (  # prompts of Google's own tools
            {
                "promptTokenCount": 9,
                "toolUsePromptTokenCount": 2,
                "candidatesTokenCount": 4,
                "totalTokenCount": 15,
            },
            Usage(11, 4),
        ),
        (
            {
                "promptTokenCount": 9,
                "cachedContentTokenCount": 5,
                "candidatesTokenCount": 4,
                "totalTokenCount": 13,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 3},
                    {"modality": "AUDIO", "tokenCount": 6},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
                "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
            },
            Usage(9, 4, cached_input_tokens=5, audio_input_tokens=1, audio_output_tokens=2),
        ),
        ({"totalTokenCount": 9}, None),
        (None, None),
    ],
)
def test_usage_has_disjoint_classes_that_sum_to_the_total(counts, usage):
    decoded = decode_usage(counts)

    assert decoded == usage
    if decoded is not None:
        assert decoded.input_tokens + decoded.output_tokens == counts["totalTokenCount"]


async def test_usage_that_never_came_is_estimated(provider, upstream):
    upstream.plays(Reply({**answer(text("Hello")), "usageMetadata": {}}))

    streamed = (await deltas(provider))[-1].usage
    whole = (await provider.complete(call(), 5.0)).usage

    assert [usage.estimated for usage in (streamed, whole)] == [True, True]


# --- counting and embedding -------------------------------------------------------------------------------------


async def test_a_call_is_counted_whole(provider, upstream):
    chat = call(messages=(ChatMessage("system", "Be brief."), ChatMessage("user", "Hi")), tools=(Tool("f"),))

    assert await provider.count_call_tokens(chat) == 42

    asked = upstream.requests[0].body["generateContentRequest"]
    assert upstream.requests[0].path == "/v1beta/models/gemini-test:countTokens"
    assert asked["model"] == "models/gemini-test"
    assert {"contents", "systemInstruction", "tools"} <= asked.keys()


async def test_texts_are_embedded_a_hundred_a_request(provider, upstream):
    assert isinstance(provider, EmbeddingProvider)

    found = await provider.embed("gemini-embedding-001", tuple(map(str, range(130))), 3, 5.0)

    assert len(found.vectors) == 130
    assert found.vectors[0] == (0.5, -0.25, 1.0)
    assert [len(request.body["requests"]) for request in upstream.requests] == [100, 30]
    assert upstream.requests[0].body["requests"][1] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "1"}]},
        "outputDimensionality": 3,
    }


@pytest.mark.parametrize(
    "bad", [{"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}, {"embeddings": [{}]}]
)
async def test_embeddings_of_another_number_or_shape_are_broken(provider, upstream, bad):
    upstream.plays(Reply(bad))

    with pytest.raises(ProviderStreamBroken):
        await provider.embed("m", ("a",), None, 5.0)


# --- addresses and keys -----------------------------------------------------------------------------------------


async def test_the_key_goes_into_a_header_and_never_into_a_url(provider, upstream):
    await deltas(provider)

    request = upstream.requests[0]
    assert request.path == "/v1beta/models/gemini-test:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == "AIza-secret"
    assert "Authorization" not in request.headers


async def test_vertex_is_asked_by_project_and_location_with_a_bearer_token(upstream):
    provider = Gemini(
        settings(
            upstream.base_url, project="acme", location="europe-west1", access_token=Secret("ya29.token")
        )
    )

    await provider.complete(call(), 5.0)
    await provider.count_call_tokens(call())
    with pytest.raises(ProviderBadRequest, match="Vertex"):
        await provider.embed("m", ("a",), None, 5.0)
    await provider.close()

    asked, counted = upstream.requests
    place = "/v1/projects/acme/locations/europe-west1/publishers/google/models/gemini-test"
    assert (asked.path, counted.path) == (f"{place}:generateContent", f"{place}:countTokens")
    assert asked.headers["Authorization"] == "Bearer ya29.token"
    assert "x-goog-api-key" not in asked.headers
    assert counted.body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_a_location_without_a_project_is_refused():
    with pytest.raises(ConfigError, match="project"):
        Gemini(settings("", location="europe-west1"))


@pytest.mark.parametrize("path", ["", "/", "/v1beta", "/v1beta/openai"])
async def test_the_base_url_is_with_or_without_its_version(upstream, path):
    provider = Gemini(settings(upstream.base_url + path))

    await provider.complete(call(model="models/gemini-test"), 5.0)
    await provider.close()

    assert upstream.requests[0].path == "/v1beta/models/gemini-test:generateContent"


async def test_no_model_name_leads_to_another_place(provider, upstream):
    await provider.complete(call(model="../../v1/x?y#z"), 5.0)

    assert upstream.requests[0].path == "/v1beta/models/..%2F..%2Fv1%2Fx%3Fy%23z:generateContent"


def test_the_kind_is_registered():
    assert PROVIDER_KINDS.get("gemini") is Gemini


async def test_calls_share_a_connection(provider, upstream):
    await deltas(provider)
    await provider.complete(call(), 5.0)

    assert len(upstream.sockets) == 1


# --- failures ---------------------------------------------------------------------------------------------------

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

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderError) as caught:
            await ask()
        assert type(caught.value) is error
        assert (caught.value.upstream_status, caught.value.upstream_code) == (status, word)
    assert "AIza" not in str(caught.value)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(("status", "word", "error"), ERRORS)
async def test_every_documented_error_inside_a_stream_has_its_class(
    provider, upstream, status, word, error, array
):
    upstream.drops_sse = array
    failure = frame({"error": status_error(status, word)})
    upstream.plays(Reply(frames=[*stream(answer(text("Hello world")))[:1], failure]))

    seen = provider.stream(call(), 5.0)
    begun = [await anext(seen), await anext(seen)]
    with pytest.raises(ProviderError) as caught:
        await anext(seen)

    assert "".join(delta.text for delta in begun) == "Hell"
    assert type(caught.value) is error
    assert caught.value.upstream_status == status


@pytest.mark.parametrize(
    ("status", "error"),
    [(402, ProviderQuotaExhausted), (408, ProviderTimeout), (502, ProviderError), (302, ProviderError)],
)
async def test_an_error_without_a_status_word_is_known_by_its_number(provider, upstream, status, error):
    upstream.plays(Reply(status=status))

    with pytest.raises(ProviderError) as caught:
        await deltas(provider)

    assert type(caught.value) is error


async def test_a_wrong_key_is_known_by_its_reason_though_its_status_is_400(provider, upstream):
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    upstream.plays(Reply(status=400, error=status_error(400, "INVALID_ARGUMENT", "AIza-secret", info)))

    with pytest.raises(ProviderAuthFailed) as caught:
        await deltas(provider)

    assert "AIza" not in str(caught.value)


@pytest.mark.parametrize(("delay", "seconds"), [("17s", 17.0), ("0.25s", 0.25), ("soon", 7.0), ("-1s", 7.0)])
async def test_the_wait_a_rate_limit_asks_for_is_passed_on(provider, upstream, delay, seconds):
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = status_error(429, "RESOURCE_EXHAUSTED", "slow down", {"@type": "other"}, info)
    upstream.plays(Reply(status=429, error=error, headers={"Retry-After": "7"}))

    with pytest.raises(ProviderRateLimited) as caught:
        await deltas(provider)

    assert caught.value.retry_after_s == seconds


async def test_a_prompt_beyond_the_context_is_known_by_its_documented_message(provider, upstream):
    words = "The input token count (1300000) exceeds the maximum number of tokens allowed (1048576)."
    upstream.plays(Reply(status=400, error=status_error(400, "INVALID_ARGUMENT", words)))

    with pytest.raises(ContextTooLong):
        await deltas(provider)


@pytest.mark.parametrize("array", [False, True])
async def test_a_stream_cut_within_a_chunk_is_broken_wherever_it_is_cut(provider, upstream, array):
    upstream.drops_sse = array
    for cut in range(len(stream(answer(text("Hello"))))):
        upstream.plays(Reply(answer(text("Hello")), cut_after=cut))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider)


async def test_a_stream_without_its_last_chunk_is_broken(provider, upstream):
    frames = stream(answer(text("Hello")))
    upstream.plays(Reply(frames=frames, end_after=len(frames) - 1))

    with pytest.raises(ProviderStreamBroken, match="finishReason"):
        await deltas(provider)


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
        await deltas(provider)


@pytest.mark.parametrize("whole", [{}, answer(text("Hi"), finish=None)])
async def test_a_whole_answer_without_an_end_is_broken(provider, upstream, whole):
    upstream.plays(Reply(whole))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await provider.complete(call(), 5.0)


async def test_silence_within_an_answer_times_out(provider, upstream):
    upstream.plays(Reply(answer(text("Hello world")), silent_after=1))

    with pytest.raises(ProviderTimeout):
        await deltas(provider, deadline_s=30.0)


@pytest.mark.parametrize("whole", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_first_byte(provider, upstream, whole):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await (provider.complete(call(), 0.2) if whole else deltas(provider, deadline_s=0.2))


async def test_a_server_that_is_not_there_is_unreachable(unused_tcp_port):
    provider = Gemini(settings(f"http://127.0.0.1:{unused_tcp_port}"))

    with pytest.raises(ProviderUnreachable) as caught:
        await deltas(provider)
    await provider.close()

    assert "AIza" not in str(caught.value)


async def test_leaving_a_stream_hangs_up(provider, upstream):
    upstream.plays(Reply(answer(text("Hello world")), silent_after=1))

    async with aclosing(provider.stream(call(), 30.0)) as seen:
        await anext(seen)

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


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_array_is_read_object_by_object_however_it_is_cut(size):
    objects = [{"a": 'x"}]\\'}, {"b": {"c": ["{", {}]}}, {"d": "\\\\"}, {}]
    data = json.dumps(objects, indent=1).encode()

    reader = JsonArrayReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]

    assert [json.loads(one) for one in found] == objects
