"""The Gemini provider against a local server of the documented wire format."""

from __future__ import annotations

import json

import pytest
from models_adapters import GEMINI, Adapter, deltas, failures

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models import (
    ChatMessage,
    ProviderBadRequest,
    ProviderStreamBroken,
    Usage,
)
from mainstay.models.collect import collect
from mainstay.models.providers.gemini_answers import decode_usage
from mainstay.models.providers.gemini_chunks import JsonArrayReader
from mainstay.models.types import Choice, EmbeddingProvider, Thinking, Tool, ToolCall
from support.anthropic_server import Reply
from support.gemini_server import answer, candidate, text

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
call = GEMINI.call


@pytest.fixture
def adapter() -> Adapter:
    return GEMINI


# --- answers ----------------------------------------------------------------------------------------------------


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

    for failure in await failures(provider, call()):
        assert type(failure) is ProviderStreamBroken
        assert failure.upstream_code == reason
        assert failure.retryable


async def test_a_signature_that_is_missing_is_the_requests_fault(provider, upstream):
    upstream.plays(Reply(answer(finish="MISSING_THOUGHT_SIGNATURE")))

    with pytest.raises(ProviderBadRequest, match="thought signature"):
        await deltas(provider, call())


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


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_array_is_read_object_by_object_however_it_is_cut(size):
    objects = [{"a": 'x"}]\\'}, {"b": {"c": ["{", {}]}}, {"d": "\\\\"}, {}]
    data = json.dumps(objects, indent=1).encode()

    reader = JsonArrayReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]

    assert [json.loads(one) for one in found] == objects


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
    await deltas(provider, call())

    request = upstream.requests[0]
    assert request.path == "/v1beta/models/gemini-test:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == "AIza-secret"
    assert "Authorization" not in request.headers


async def test_vertex_is_asked_by_project_and_location_with_a_bearer_token(upstream):
    vertex = {"project": "acme", "location": "europe-west1", "access_token": Secret("ya29.token")}
    provider = GEMINI.make(upstream.base_url, options=vertex)

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
        GEMINI.make("", options={"location": "europe-west1"})


@pytest.mark.parametrize("path", ["", "/", "/v1beta", "/v1beta/openai"])
async def test_the_base_url_is_with_or_without_its_version(upstream, path):
    provider = GEMINI.make(upstream.base_url + path)

    await provider.complete(call(model="models/gemini-test"), 5.0)
    await provider.close()

    assert upstream.requests[0].path == "/v1beta/models/gemini-test:generateContent"


async def test_no_model_name_leads_to_another_place(provider, upstream):
    await provider.complete(call(model="../../v1/x?y#z"), 5.0)

    assert upstream.requests[0].path == "/v1beta/models/..%2F..%2Fv1%2Fx%3Fy%23z:generateContent"
