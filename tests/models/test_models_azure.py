"""Azure OpenAI against a local server with its addresses, keys and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models import (
    ChatCall,
    ChatMessage,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderModelMissing,
    ProviderRateLimited,
    Usage,
)
from mainstay.models.providers import AzureOpenAi, HttpProviderSettings
from support.azure_server import FILTERED, AzureServer
from support.openai_server import Reply

DATED = {"api_version": "2024-10-21"}


@pytest_asyncio.fixture
async def azure() -> AsyncIterator[AzureServer]:
    async with AzureServer() as server:
        yield server


def provider(
    azure: AzureServer, key: str | None = "azure-key", path: str = "", **options: object
) -> AzureOpenAi:
    secret = None if key is None else Secret(key)
    return AzureOpenAi(HttpProviderSettings("azure", azure.endpoint + path, secret, options=options))  # type: ignore[arg-type]


def call(model: str = "my-gpt", **more: object) -> ChatCall:
    return ChatCall(model, (ChatMessage("developer", "Be brief."),), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/v1"])
async def test_the_v1_api_is_used_without_a_version(azure, path):
    reached = provider(azure, path=path)

    answer = await reached.complete(call(max_tokens=7), 5.0)
    await reached.close()

    [seen] = azure.requests
    assert seen.path == "/openai/v1/chat/completions"
    assert seen.headers["api-key"] == "azure-key"
    assert "Authorization" not in seen.headers
    assert (seen.body["model"], seen.body["max_completion_tokens"]) == ("my-gpt", 7)
    assert seen.body["messages"] == [{"role": "developer", "content": "Be brief."}]
    assert answer.choices[0].text == "Hello world"


async def test_preview_is_a_version_of_the_v1_api(azure):
    reached = provider(azure, api_version="preview")

    await reached.complete(call(), 5.0)
    await reached.close()

    assert azure.requests[0].path == "/openai/v1/chat/completions?api-version=preview"


async def test_a_dated_version_calls_the_deployment(azure):
    reached = provider(azure, **DATED)

    deltas = [delta async for delta in reached.stream(call(), 5.0)]
    await reached.close()

    assert azure.requests[0].path == "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert "".join(delta.text for delta in deltas) == "Hello world"
    assert next(delta.usage for delta in deltas if delta.usage) == Usage(11, 3)


async def test_an_old_version_knows_max_tokens_only(azure):
    reached = provider(azure, api_version="2024-02-01")

    await reached.complete(call(max_tokens=7), 5.0)
    await reached.close()

    assert azure.requests[0].body["max_tokens"] == 7


async def test_an_entra_token_is_a_bearer_token(azure):
    reached = provider(azure, key=None, entra_token=Secret("entra-token"))

    await reached.complete(call(), 5.0)
    await reached.close()

    assert azure.requests[0].headers["Authorization"] == "Bearer entra-token"
    assert "api-key" not in azure.requests[0].headers


async def test_embeddings_go_to_the_deployment_too(azure):
    azure.plays(Reply(whole={"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}}))
    reached = provider(azure, **DATED)

    found = await reached.embed("my-gpt", ("a",), None, 5.0)
    await reached.close()

    assert azure.requests[0].path.startswith("/openai/deployments/my-gpt/embeddings?")
    assert found.vectors == ((0.5,),)


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (FILTERED, ProviderBadRequest, "content_filter"),
        (
            Reply(status=429, error={"code": "429", "message": "slow"}, headers={"Retry-After": "3"}),
            ProviderRateLimited,
            "429",
        ),
    ],
)
async def test_refusals_become_their_errors(azure, reply, kind, code):
    azure.plays(reply)
    reached = provider(azure)

    with pytest.raises(kind) as caught:
        await reached.complete(call(), 5.0)
    await reached.close()

    assert caught.value.upstream_code == code


async def test_a_wrong_key_and_an_unknown_deployment_are_told_apart(azure):
    with pytest.raises(ProviderAuthFailed):
        await provider(azure, key="wrong").complete(call(), 5.0)
    with pytest.raises(ProviderModelMissing):
        await provider(azure, **DATED).complete(call("other"), 5.0)


async def test_events_about_filters_are_no_deltas(azure):
    filters = (
        b'data: {"choices":[],"model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"content_filter_results":{}}]}\n\n'
        b'data: {"choices":[{"index":0,"content_filter_offsets":{},"finish_reason":null}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}\n\ndata: [DONE]\n\n'
    )
    azure.plays(Reply(raw=filters))
    reached = provider(azure)

    deltas = [delta async for delta in reached.stream(call(), 5.0)]
    await reached.close()

    assert [(d.text, d.finish_reason) for d in deltas[:2]] == [("Hi", None), ("", "content_filter")]


@pytest.mark.parametrize(
    ("key", "options", "words"),
    [
        (None, {}, "neither a key nor"),
        ("k", {"entra_token": "plain"}, "wrong kind"),
        ("k", {"region": "eu"}, "no option 'region'"),
    ],
)
def test_a_mistake_in_the_settings_is_told(key, options, words):
    settings = HttpProviderSettings(
        "azure", "https://x", None if key is None else Secret(key), options=options
    )

    with pytest.raises(ConfigError, match=words):
        AzureOpenAi(settings)
