"""The Ollama provider against a local server of the documented wire format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

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
from mainstay.models.accounts import Accounts
from mainstay.models.collect import collect
from mainstay.models.config import ModelConfig, ModelsConfig
from mainstay.models.providers.ollama import Ollama
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Choice, Completion, EmbeddingProvider, Health, Probed, Thinking, ToolCall
from support.anthropic_server import Reply
from support.ollama_server import OllamaServer, answer, line, stream, tool_call

CALLS = [tool_call("weather", {"city": "Ghent", "days": [1, 2]}), tool_call("clock", {})]
RICH = answer("I ask.", thinking="Let me see, yes.", tool_calls=CALLS)


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as server:
        server.plays(Reply(answer("Hello world")))
        yield server


@pytest_asyncio.fixture
async def provider(upstream: OllamaServer) -> AsyncIterator[Ollama]:
    provider = Ollama(settings(upstream.base_url))
    yield provider
    await provider.close()


def settings(base_url: str, key: str | None = None, **options: str) -> HttpProviderSettings:
    return HttpProviderSettings(
        "ollama",
        base_url,
        Secret(key) if key else None,
        connect_timeout_s=2.0,
        idle_timeout_s=0.3,
        options=options,
    )


def call(**more: Any) -> ChatCall:
    return ChatCall(**{"model": "qwen3:4b", "messages": (ChatMessage("user", "Hi"),), **more})


async def deltas(provider: Ollama, chat: ChatCall | None = None, deadline_s: float = 5.0) -> list[Delta]:
    return [delta async for delta in provider.stream(chat or call(), deadline_s)]


# --- answers ----------------------------------------------------------------------------------------------------


async def test_an_answer_streams_with_its_finish_and_then_its_usage(provider, upstream):
    seen = await deltas(provider)

    assert [delta.text for delta in seen if delta.text] == ["Hell", "o wo", "rld"]
    assert [delta.finish_reason for delta in seen if delta.finish_reason] == ["stop"]
    assert seen[0].model == "qwen3:4b"
    assert seen[-1].usage == Usage(26, 9)
    assert upstream.requests[0].path == "/api/chat"
    assert upstream.requests[0].body["stream"] is True


async def test_a_whole_answer_is_asked_without_a_stream(provider, upstream):
    whole = await provider.complete(call(), 5.0)

    assert whole == Completion((Choice(text="Hello world"),), Usage(26, 9), "qwen3:4b")
    assert upstream.requests[0].body["stream"] is False


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


@pytest.mark.parametrize("missing", ["prompt_eval_count", "eval_count"])
async def test_usage_that_was_not_counted_is_estimated(provider, upstream, missing):
    upstream.plays(Reply({name: value for name, value in answer("Hello").items() if name != missing}))

    streamed = (await deltas(provider))[-1].usage
    whole = (await provider.complete(call(), 5.0)).usage

    assert [usage.estimated for usage in (streamed, whole)] == [True, True]


# --- settings and addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1", "/api"])
async def test_the_base_url_is_with_or_without_a_path(upstream, path):
    provider = Ollama(settings(upstream.base_url + path, key="k"))

    await provider.complete(call(), 5.0)
    await provider.close()

    assert upstream.requests[0].path == "/api/chat"
    assert upstream.requests[0].headers["Authorization"] == "Bearer k"


async def test_the_context_is_the_models_else_the_providers(upstream):
    provider = Ollama(
        settings(upstream.base_url, **{"num_ctx": "8192", "num_ctx.qwen3:4b": "16384", "keep_alive": "30m"})
    )

    await provider.complete(call(), 5.0)
    await provider.complete(call(model="other"), 5.0)
    await provider.complete(call(extra={"num_ctx": 99, "keep_alive": "0"}), 5.0)
    await provider.close()

    assert [request.body["options"]["num_ctx"] for request in upstream.requests] == [16384, 8192, 99]
    assert [request.body["keep_alive"] for request in upstream.requests] == ["30m", "30m", 0]


@pytest.mark.parametrize("value", ["", "many", "0", "-1"])
def test_a_context_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match="num_ctx"):
        Ollama(settings("", num_ctx=value))


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


def test_the_kind_is_registered():
    assert PROVIDER_KINDS.get("ollama") is Ollama


async def test_calls_share_a_connection(provider, upstream):
    await deltas(provider)
    await provider.complete(call(), 5.0)

    assert len(upstream.sockets) == 1


# --- health and embeddings --------------------------------------------------------------------------------------


async def test_its_health_is_whether_it_answers(provider, upstream, unused_tcp_port):
    assert isinstance(provider, Probed)
    nobody = Ollama(settings(f"http://127.0.0.1:{unused_tcp_port}"))

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

    for ask in (lambda: deltas(provider), lambda: provider.complete(call(), 5.0)):
        with pytest.raises(ProviderError) as caught:
            await ask()
        assert type(caught.value) is error
        assert caught.value.upstream_status == status
        assert caught.value.retry_after_s == (7.0 if error.retryable else None)


async def test_a_model_that_is_not_there_says_how_to_get_it(provider, upstream):
    upstream.plays(Reply(status=404, error={"error": "model 'qwen3:4b' not found"}))

    with pytest.raises(ProviderModelMissing) as caught:
        await deltas(provider)

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
        await deltas(provider)

    assert "context_tokens" in str(caught.value.fix)
    assert caught.value.upstream_status == 400


async def test_an_error_line_ends_a_stream(provider, upstream):
    failure = line({"error": "an error was encountered while running the model"})
    upstream.plays(Reply(frames=[*stream(answer("Hello world"))[:1], failure]))

    seen = provider.stream(call(), 5.0)
    begun = [await anext(seen), await anext(seen)]
    with pytest.raises(ProviderError, match="running the model") as caught:
        await anext(seen)

    assert "".join(delta.text for delta in begun) == "Hell"
    assert type(caught.value) is ProviderError


async def test_an_error_that_is_no_json_is_known_by_its_status(provider, upstream):
    upstream.plays(Reply(status=502))

    with pytest.raises(ProviderError, match="no reason given"):
        await deltas(provider)


async def test_a_stream_cut_within_a_line_is_broken_wherever_it_is_cut(provider, upstream):
    for cut in range(len(stream(answer("Hello")))):
        upstream.plays(Reply(answer("Hello"), cut_after=cut))
        with pytest.raises(ProviderStreamBroken):
            await deltas(provider)


async def test_a_stream_without_its_last_line_is_broken(provider, upstream):
    frames = stream(answer("Hello"))
    upstream.plays(Reply(frames=frames, end_after=len(frames) - 1))

    with pytest.raises(ProviderStreamBroken, match="before it was done"):
        await deltas(provider)


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
        await deltas(provider)


async def test_lines_are_read_however_they_are_cut(provider, upstream):
    whole = b"".join(stream(RICH))
    upstream.plays(Reply(frames=[whole[at : at + 7] for at in range(0, len(whole), 7)]))

    assert (await collect(provider.stream(call(), 5.0))).choices[0].text == "I ask."


async def test_a_whole_answer_that_is_not_done_is_broken(provider, upstream):
    upstream.plays(Reply({**answer("Hi"), "done": False}))

    with pytest.raises(ProviderStreamBroken, match="not done"):
        await provider.complete(call(), 5.0)


async def test_silence_within_an_answer_times_out(provider, upstream):
    upstream.plays(Reply(answer("Hello world"), silent_after=1))

    with pytest.raises(ProviderTimeout):
        await deltas(provider, deadline_s=30.0)


@pytest.mark.parametrize("whole", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_first_byte(provider, upstream, whole):
    upstream.plays(Reply(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await (provider.complete(call(), 0.2) if whole else deltas(provider, deadline_s=0.2))


async def test_a_server_that_is_not_there_is_unreachable(unused_tcp_port):
    provider = Ollama(settings(f"http://127.0.0.1:{unused_tcp_port}"))

    with pytest.raises(ProviderUnreachable):
        await deltas(provider)
    await provider.close()


async def test_leaving_a_stream_hangs_up(provider, upstream):
    upstream.plays(Reply(answer("Hello world"), silent_after=1))

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
