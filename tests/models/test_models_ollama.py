"""The Ollama provider against a local server of the documented wire format."""

from __future__ import annotations

import json

import pytest
from models_adapters import OLLAMA, Adapter, broken_off, deltas, failures

from mainstay.core.errors import ConfigError
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
from mainstay.models.accounts import Accounts
from mainstay.models.collect import collect
from mainstay.models.config import ModelConfig, ModelsConfig
from mainstay.models.providers.ollama import Ollama
from mainstay.models.types import EmbeddingProvider, Health, Probed, Thinking, ToolCall
from support.anthropic_server import Reply
from support.ollama_server import answer, line, stream, tool_call

CALLS = [tool_call("weather", {"city": "Ghent", "days": [1, 2]}), tool_call("clock", {})]
RICH = answer("I ask.", thinking="Let me see, yes.", tool_calls=CALLS)
call = OLLAMA.call


@pytest.fixture
def adapter() -> Adapter:
    return OLLAMA


# --- answers ----------------------------------------------------------------------------------------------------


async def test_one_address_gives_streams_and_whole_answers(provider, upstream):
    await deltas(provider, call())
    await provider.complete(call(), 5.0)

    assert [(asked.path, asked.body["stream"]) for asked in upstream.requests] == [
        ("/api/chat", True),
        ("/api/chat", False),
    ]


async def test_a_streamed_and_a_whole_answer_are_the_same_but_for_ids(provider, upstream):
    upstream.plays(Reply(RICH))

    streamed = (await collect(provider.stream(call(), 5.0))).choices[0]
    whole = (await provider.complete(call(), 5.0)).choices[0]

    for choice in (streamed, whole):
        assert (choice.text, choice.reasoning, choice.finish_reason) == (
            "I ask.",
            "Let me see, yes.",
            "tool_calls",
        )
        assert choice.thinking == (Thinking("Let me see, yes."),)
        assert [(made.name, made.arguments) for made in choice.tool_calls] == [
            ("weather", '{"city":"Ghent","days":[1,2]}'),
            ("clock", "{}"),
        ]
        assert len({made.id for made in choice.tool_calls}) == 2


async def test_an_id_of_a_call_is_kept(provider, upstream):
    upstream.plays(Reply(answer(tool_calls=[tool_call("clock", {}, id="call_x")])))

    assert (await provider.complete(call(), 5.0)).choices[0].tool_calls == (
        ToolCall("call_x", "clock", "{}"),
    )


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("load", "stop"), ("unload", "stop")]
)
async def test_every_done_reason_has_its_counterpart(provider, upstream, reason, told):
    upstream.plays(Reply(answer("Hi", done_reason=reason)))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].finish_reason == told


async def test_calls_cut_by_the_token_limit_are_told_as_cut(provider, upstream):
    upstream.plays(Reply(answer(tool_calls=CALLS, done_reason="length")))

    assert (await provider.complete(call(), 5.0)).choices[0].finish_reason == "length"


async def test_logprobs_come_as_openais_items(provider, upstream):
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    upstream.plays(
        Reply(answer("Hi", logprobs=[{**token, "top_logprobs": [{"token": "Ho", "logprob": -1.0}]}]))
    )

    choice = (await collect(provider.stream(call(logprobs=True, top_logprobs=1), 5.0))).choices[0]

    other = {"token": "Ho", "logprob": -1.0, "bytes": [72, 111]}
    assert choice.logprobs == ({**token, "top_logprobs": [other]},)
    assert upstream.requests[0].body["logprobs"] is True
    assert upstream.requests[0].body["top_logprobs"] == 1


# --- settings and addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1", "/api"])
async def test_the_base_url_is_with_or_without_a_path(upstream, path):
    provider = OLLAMA.make(upstream.base_url + path)

    await provider.complete(call(), 5.0)
    await provider.close()

    assert upstream.requests[0].path == "/api/chat"
    assert upstream.requests[0].headers["Authorization"] == "Bearer ollama-secret"


async def test_the_context_is_the_models_else_the_providers(upstream):
    options = {"num_ctx": "8192", "num_ctx.qwen3:4b": "16384", "keep_alive": "30m"}
    provider = OLLAMA.make(upstream.base_url, options=options)

    await provider.complete(call(), 5.0)
    await provider.complete(call(model="other"), 5.0)
    await provider.complete(call(extra={"num_ctx": 99, "keep_alive": "0"}), 5.0)
    await provider.close()

    assert [request.body["options"]["num_ctx"] for request in upstream.requests] == [16384, 8192, 99]
    assert [request.body["keep_alive"] for request in upstream.requests] == ["30m", "30m", 0]


@pytest.mark.parametrize("value", ["", "many", "0", "-1"])
def test_a_context_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match="num_ctx"):
        OLLAMA.make("", options={"num_ctx": value})


async def test_the_environments_ollama_is_spoken_to_natively_with_the_context_of_its_models(upstream):
    alias = ModelConfig("small", provider="ollama", model="qwen3:4b", context_tokens=4096)
    accounts = Accounts(ModelsConfig(models={"small": alias}), {"OLLAMA_HOST": upstream.base_url})

    provider = accounts.provider(accounts.get("ollama"), 0)
    await provider.complete(call(), 5.0)
    await accounts.close()

    assert isinstance(provider, Ollama)
    assert upstream.requests[0].body["options"] == {"num_ctx": 4096}


def test_another_context_makes_another_account():
    def account(context_tokens: int) -> object:
        alias = ModelConfig("small", provider="ollama", model="m", context_tokens=context_tokens)
        return Accounts(ModelsConfig(models={"small": alias}), {}).get("ollama")

    assert account(4096) == account(4096)
    assert account(4096) != account(8192)


# --- health and embeddings --------------------------------------------------------------------------------------


async def test_its_health_is_whether_it_answers(provider, upstream, unused_tcp_port):
    assert isinstance(provider, Probed)
    nobody = OLLAMA.make(f"http://127.0.0.1:{unused_tcp_port}")

    well, missing = await provider.health(2.0), await nobody.health(2.0)
    upstream.well = False
    unwell = await provider.health(2.0)
    await nobody.close()

    assert (well, missing, unwell) == (Health(True), Health(False), Health(False))


async def test_texts_are_embedded_and_never_cut(provider, upstream):
    assert isinstance(provider, EmbeddingProvider)

    found = await provider.embed("nomic-embed-text", ("a", "b"), 3, 5.0)

    assert found.vectors == ((0.5, -0.25, 1.0), (0.5, -0.25, 1.0))
    assert (found.input_tokens, found.model) == (7, "nomic-embed-text")
    assert upstream.requests[0].body == {
        "model": "nomic-embed-text",
        "input": ["a", "b"],
        "truncate": False,
        "dimensions": 3,
    }


@pytest.mark.parametrize("bad", [{"embeddings": [[1.0], [2.0]]}, {"embeddings": [["a"]]}])
async def test_embeddings_of_another_number_or_shape_are_broken(provider, upstream, bad):
    upstream.plays(Reply(bad))

    with pytest.raises(ProviderStreamBroken):
        await provider.embed("m", ("a",), None, 5.0)


# --- failures ---------------------------------------------------------------------------------------------------

ERRORS = [
    (400, ProviderBadRequest),
    (401, ProviderAuthFailed),
    (402, ProviderQuotaExhausted),
    (403, ProviderAuthFailed),
    (404, ProviderModelMissing),
    (413, ContextTooLong),
    (429, ProviderRateLimited),
    (500, ProviderError),
    (502, ProviderError),
    (503, ProviderError),
    (504, ProviderTimeout),
]


@pytest.mark.parametrize(("status", "error"), ERRORS)
async def test_every_documented_status_has_its_class(provider, upstream, status, error):
    upstream.plays(Reply(status=status, error={"error": "the number 429"}, headers={"Retry-After": "7"}))

    for failure in await failures(provider, call()):
        assert type(failure) is error
        assert failure.upstream_status == status
        assert failure.retry_after_s == (7.0 if error.retryable else None)


async def test_a_model_that_is_not_there_says_how_to_get_it(provider, upstream):
    upstream.plays(Reply(status=404, error={"error": "model 'qwen3:4b' not found"}))

    with pytest.raises(ProviderModelMissing) as caught:
        await deltas(provider, call())

    assert "ollama pull qwen3:4b" in str(caught.value.fix)


RUNNER = {
    "code": 400,
    "message": "request (8889 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "type": "exceed_context_size_error",
}


@pytest.mark.parametrize(
    "error",
    [
        "the input length exceeds the context length",
        "the prompt is longer than the context length currently available to the model; shorten it",
        json.dumps({"error": RUNNER}),
        {"error": RUNNER},
        RUNNER,
    ],
)
async def test_a_conversation_beyond_the_context_is_refused(provider, upstream, error):
    upstream.plays(Reply(status=400, error={"error": error}))

    with pytest.raises(ContextTooLong) as caught:
        await deltas(provider, call())

    assert "context_tokens" in str(caught.value.fix)
    assert caught.value.upstream_status == 400


async def test_an_error_line_ends_a_stream(provider, upstream):
    told = line({"error": "an error was encountered while running the model"})
    upstream.plays(Reply(frames=[*stream(answer("Hello world"))[:1], told]))

    said, failure = await broken_off(provider, call())

    assert said == "Hell"
    assert type(failure) is ProviderError
    assert "running the model" in str(failure)


async def test_an_error_that_is_no_json_is_known_by_its_status(provider, upstream):
    upstream.plays(Reply(status=502))

    with pytest.raises(ProviderError, match="no reason given"):
        await deltas(provider, call())


@pytest.mark.parametrize(
    "bad",
    [
        b"{oops\n",
        b"[1]\n",
        line({"message": "Hi"}),
        line({"message": {"content": 5}}),
        line({"message": {"tool_calls": {"a": 1}}}),
        line({"message": {"tool_calls": [{"function": {}}]}}),
    ],
)
async def test_a_line_of_another_shape_breaks_the_stream(provider, upstream, bad):
    upstream.plays(Reply(frames=[bad]))

    with pytest.raises(ProviderStreamBroken, match="cannot read"):
        await deltas(provider, call())


async def test_lines_are_read_however_they_are_cut(provider, upstream):
    whole = b"".join(stream(RICH))
    upstream.plays(Reply(frames=[whole[at : at + 7] for at in range(0, len(whole), 7)]))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "I ask."


async def test_a_whole_answer_that_is_not_done_is_broken(provider, upstream):
    upstream.plays(Reply({**answer("Hi"), "done": False}))

    with pytest.raises(ProviderStreamBroken, match="not done"):
        await provider.complete(call(), 5.0)
