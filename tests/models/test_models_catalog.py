"""Names and what they resolve to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from mainstay.core.errors import ConfigError
from mainstay.core.yamlfile import parse_yaml
from mainstay.models import (
    Catalog,
    ChatCall,
    ChatMessage,
    EngineSettings,
    ModelsConfig,
    ProviderError,
    SentenceSelector,
    SourcePassage,
    UnknownModel,
    install,
    ollama_available,
    ollama_models,
    read_models_config,
)
from support.openai_server import OpenAiServer

MakeCatalog = Callable[..., Catalog]


def config(text: str) -> ModelsConfig:
    return read_models_config(parse_yaml(text, Path("mainstay.yaml")))


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeCatalog]:
    made: list[Catalog] = []

    def build(
        yaml: str = "", environment: Mapping[str, str] | None = None, selector: SentenceSelector | None = None
    ) -> Catalog:
        catalog = Catalog(config(yaml), tmp_path / "models", environment or {}, EngineSettings(), selector)
        made.append(catalog)
        return catalog

    yield build
    for catalog in made:
        await catalog.close()


async def answer(catalog: Catalog, name: str, **more: object) -> str:
    target = catalog.resolve(name)
    chat = ChatCall(model=target.model, messages=(ChatMessage("user", "Hi"),), **more)  # type: ignore[arg-type]
    return "".join([delta.text async for delta in target.provider.stream(chat, 5.0)])


def test_a_vendor_is_there_when_its_key_is_set(make):
    target = make(environment={"OPENAI_API_KEY": "sk-x"}).resolve("openai/gpt-4o-mini")

    assert (target.provider.name, target.model, target.context_tokens) == ("openai", "gpt-4o-mini", 128_000)
    assert target.price is not None


def test_a_vendor_without_its_key_says_which_variable_to_set(make):
    with pytest.raises(UnknownModel, match="GROQ_API_KEY") as caught:
        make().resolve("groq/llama-3.3-70b-versatile")

    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_a_bare_name_goes_to_the_vendor_that_lists_it(make):
    catalog = make(environment={"OPENAI_API_KEY": "sk-x"})

    assert catalog.resolve("gpt-4o-mini").provider.name == "openai"
    with pytest.raises(UnknownModel):
        make().resolve("gpt-4o-mini")


def test_a_new_model_of_a_known_vendor_resolves_without_a_price(make):
    target = make(environment={"OPENAI_API_KEY": "sk-x"}).resolve("openai/gpt-99-unheard-of")

    assert target.price is None


def test_an_unknown_name_gets_the_nearest(make):
    with pytest.raises(UnknownModel, match="local/extractive"):
        make().resolve("local/extractiv")


def test_a_model_that_can_be_installed_says_how(make):
    with pytest.raises(UnknownModel, match="mainstay models add smollm2"):
        make().resolve("local/smollm2")


def test_an_installed_file_is_a_local_model(make, tmp_path):
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"GGUF")
    install.add(str(path), tmp_path / "models")
    catalog = make()

    target = catalog.resolve("local/toy")

    assert target.price is not None
    assert target.price.source == "local"
    assert target.context_tokens == 2048
    assert "local/toy" in [info.name for info in catalog.names()]


async def test_a_route_goes_through_a_configured_provider_with_its_key(make):
    async with OpenAiServer() as upstream:
        yaml = f"""
providers:
  house: {{base_url: {upstream.base_url}, api_key_env: HOUSE_KEY, models: [big]}}
models:
  fast: {{provider: house, model: big, context_tokens: 4096, price: {{input: 0.15, output: 0.6}}}}
"""
        catalog = make(yaml, {"HOUSE_KEY": "secret-house-key"})
        target = catalog.resolve("fast")

        assert await answer(catalog, "fast") == "Hello world"
        assert upstream.requests[0].headers["Authorization"] == "Bearer secret-house-key"
        assert (target.public_name, target.model, target.context_tokens) == ("fast", "big", 4096)
        assert target.price is not None
        assert (target.price.input_nusd, target.price.output_nusd) == (150.0, 600.0)
        assert target.price.source == "mainstay.yaml, line 5"
        assert catalog.resolve("house/big").price is None
        assert [info.name for info in catalog.names()][:3] == ["fast", "local/extractive", "house/big"]


def test_a_missing_key_of_a_configured_provider_names_its_variable(make):
    catalog = make("providers: {house: {base_url: 'http://h/v1', api_key_env: HOUSE_KEY}}")

    with pytest.raises(ConfigError, match="HOUSE_KEY"):
        catalog.resolve("house/big")


def test_a_route_to_an_unknown_provider_stops_start_up(make):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        make("models: {fast: {provider: openai, model: gpt-4o-mini}}")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("providers:\n  a: {base_url: ftp://x}", "line 2.*http"),
        ("providers:\n  a: {base_url: 'http://me:pw@x/v1'}", "line 2.*password.*api_key_env"),
        ("providers:\n  a: {base_url: http://x, modles: []}", "line 2.*Did you mean 'models'"),
        ("providers:\n  local: {base_url: http://x}", "line 2.*local"),
        ("models:\n  a:\n    provider: local", "line 2.*model"),
        ("models:\n  a: {provider: local, model: x, price: {input: -1, output: 1}}", "not negative"),
        ("models:\n  a: {provider: local, model: x, context_tokens: many}", "whole number"),
        ("models: [a]", "mapping"),
    ],
)
def test_a_mistake_in_the_file_is_shown_with_its_line(yaml, words):
    with pytest.raises(ConfigError, match=words):
        config(yaml)


def test_a_file_without_the_sections_is_an_empty_config():
    assert read_models_config(None) == config("project: x") == ModelsConfig()


def test_ollama_needs_no_key_and_costs_nothing(make):
    target = make(environment={"OLLAMA_HOST": "127.0.0.1:1"}).resolve("ollama/qwen3:4b")

    assert (target.provider.name, target.model) == ("ollama", "qwen3:4b")
    assert target.price is not None
    assert target.price.source == "local"


async def test_an_ollama_that_is_not_there_is_not_available():
    assert not await ollama_available({"OLLAMA_HOST": "127.0.0.1:9"}, timeout_s=2.0)


async def test_an_ollama_says_which_models_it_has():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"models": [{"name": "qwen3:4b"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await ollama_models({"OLLAMA_HOST": f"http://127.0.0.1:{port}"}) == ("qwen3:4b",)


PASSAGES = (SourcePassage(1, "Leave is 27 days. Ask early."), SourcePassage(2, "Lunch is at noon."))


async def test_extractive_answers_with_numbered_source_sentences(make):
    def select(question: str, passages: tuple[SourcePassage, ...]) -> tuple[tuple[str, int], ...]:
        assert question == "How long is leave?"
        return (("Leave is 27 days.", 1), ("Lunch is at noon.", 2), ("Ask early.", 1), ("Too many.", 2))

    catalog = make(selector=select)

    text = await answer(catalog, "local/extractive", question="How long is leave?", passages=PASSAGES)

    assert text == "Leave is 27 days. [1] Ask early. [1] Lunch is at noon. [2]"


async def test_extractive_says_so_when_nothing_supports_an_answer(make):
    catalog = make(selector=lambda question, passages: ())

    assert (
        await answer(catalog, "local/extractive", question="?", passages=PASSAGES)
        == "The sources do not say."
    )
    assert await answer(catalog, "local/extractive") == "The sources do not say."


async def test_extractive_without_a_selector_says_how_to_get_one(make):
    with pytest.raises(ProviderError, match="models add minilm"):
        await answer(make(), "local/extractive", question="?", passages=PASSAGES)


async def test_a_secret_key_is_in_no_representation(make):
    catalog = make(environment={"OPENAI_API_KEY": "sk-very-secret"})

    target = catalog.resolve("openai/gpt-4o-mini")

    assert "very-secret" not in repr(target) + repr(vars(target.provider))
