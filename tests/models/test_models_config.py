"""Providers, models and routes of the project file, and what the catalogue makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from mainstay.core.errors import ConfigError
from mainstay.core.yamlfile import parse_yaml
from mainstay.models import Catalog, ChatCall, ChatMessage, EngineSettings, UnknownModel, read_models_config
from mainstay.models.capabilities import ALL
from mainstay.models.providers import AzureOpenAi, Vllm
from mainstay.models.types import Route
from support.azure_server import AzureServer
from support.openai_server import OpenAiServer

MakeCatalog = Callable[..., Catalog]
KEYS = {"OPENAI_API_KEY": "sk-o", "GROQ_API_KEY": "sk-g"}
TWO_KEYS = {"A_KEY": "sk-a", "B_KEY": "sk-b"}


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeCatalog]:
    made: list[Catalog] = []

    def build(yaml: str, environment: Mapping[str, str] | None = None) -> Catalog:
        config = read_models_config(parse_yaml(yaml, Path("mainstay.yaml")))
        made.append(Catalog(config, tmp_path / "models", environment or {}, EngineSettings()))
        return made[-1]

    yield build
    for catalog in made:
        await catalog.close()


def told(route: Route) -> list[tuple[str, str | None, float]]:
    return [(t.target.public_name, t.target.credential, t.weight) for t in route.targets]


def test_a_route_has_its_targets_weights_and_limits(make):
    catalog = make(
        """
routes:
  fast:
    policy: ordered
    targets: [openai/gpt-4o-mini, {model: groq/llama-3.3-70b-versatile, weight: 2}]
    sticky: true
    attempts: 4
    attempts_per_target: 1
    deadline_s: 60
    first_token_timeout_s: 10
    cache_ttl_s: 300
    context_fallback: openai/gpt-4.1
""",
        KEYS,
    )

    route = catalog.route("fast")

    assert told(route) == [("openai/gpt-4o-mini", None, 1.0), ("groq/llama-3.3-70b-versatile", None, 2.0)]
    assert (route.name, route.policy, route.sticky) == ("fast", "ordered", True)
    assert (route.attempts_max, route.attempts_per_target_max) == (4, 1)
    assert (route.deadline_s, route.first_token_timeout_s, route.cache_ttl_s) == (60, 10, 300)
    assert route.context_fallback == "openai/gpt-4.1"
    assert catalog.resolve("fast").public_name == "openai/gpt-4o-mini"
    assert catalog.names()[0].name == "fast"


def test_a_plain_model_is_a_route_of_one_target(make):
    route = make("", KEYS).route("openai/gpt-4o-mini")

    assert told(route) == [("openai/gpt-4o-mini", None, 1.0)]
    assert (route.policy, route.attempts_max, route.cache_ttl_s) == ("weighted", 3, None)


async def test_several_keys_are_targets_that_share_the_weight(make):
    async with OpenAiServer() as upstream:
        catalog = make(
            f"""
providers: {{house: {{base_url: "{upstream.base_url}", api_key_envs: [A_KEY, B_KEY]}}}}
routes: {{both: {{targets: [{{model: house/m, weight: 3}}]}}}}
""",
            TWO_KEYS,
        )

        assert told(catalog.route("house/m")) == [("house/m", "key 1", 1.0), ("house/m", "key 2", 1.0)]
        assert told(catalog.route("both")) == [("house/m", "key 1", 1.5), ("house/m", "key 2", 1.5)]
        for target in catalog.route("house/m").targets:
            await target.target.provider.complete(ChatCall("m", (ChatMessage("user", "Hi"),)), 5.0)

    assert [seen.headers["Authorization"] for seen in upstream.requests] == ["Bearer sk-a", "Bearer sk-b"]


def test_a_vendor_may_be_given_several_keys_and_nothing_else(make):
    route = make("providers: {groq: {api_key_envs: [A_KEY, B_KEY]}}", TWO_KEYS).route(
        "groq/llama-3.3-70b-versatile"
    )

    assert [t.target.credential for t in route.targets] == ["key 1", "key 2"]
    assert route.targets[0].target.price is not None
    assert "n" not in route.targets[0].target.capabilities


def test_one_adapter_serves_all_models_of_a_key(make):
    catalog = make("", KEYS)

    assert catalog.resolve("openai/gpt-4o").provider is catalog.resolve("openai/gpt-4.1").provider


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "targets: [openai/gpt-4o-mini, smal]",
            r"line 4: routes\.fast\.targets\.1.*'smal'.*Did you mean 'small'",
        ),
        ("targets: [mistral/x]", "line 4.*Set MISTRAL_API_KEY"),
        ("targets: [local/smollm2]", "line 4.*mainstay models add smollm2"),
        ("targets: [openai/gpt-4o-mini]\n    context_fallback: nope", "line 3.*'nope'"),
        ("targets: [other]", "line 4.*'other' is a route"),
        ("targets: []", "line 4.*list of model names"),
        ("policy: fastest\n    targets: [small]", "line 4.*'fastest'.*weighted, ordered, latency, cheapest"),
        ("targets: [{model: small, wieght: 2}]", "line 4.*Did you mean 'weight'"),
        ("targets: [{model: small, weight: -2}]", "line 4.*not negative"),
        ("targets: [small]\n    attempts: 0", "line 5.*whole number of attempts"),
        ("targets: [small]\n    deadline_s: 0", "line 5.*more than 0"),
        ("targets: [small]\n    sticky: yes please", "line 5.*true or false"),
        ("targets: [small]\n    polcy: ordered", "line 5.*Did you mean 'policy'"),
    ],
)
def test_a_mistake_in_a_route_is_shown_with_its_line(make, body, words):
    yaml = (
        "models: {small: {provider: local, model: extractive}}\n"
        f"routes:\n  fast:\n    {body}\n  other: {{targets: [small]}}\n"
    )

    with pytest.raises(ConfigError, match=words):
        make(yaml, KEYS)


def test_a_key_that_is_not_set_stops_a_route_when_it_is_read(make):
    yaml = """
providers: {house: {base_url: "http://h/v1", api_key_envs: [A_KEY, C_KEY]}}
routes: {fast: {targets: [house/m]}}
"""

    with pytest.raises(ConfigError, match="C_KEY"):
        make(yaml, TWO_KEYS)


def test_a_route_and_a_model_cannot_share_a_name(make):
    with pytest.raises(ConfigError, match="also a name under models"):
        make("models: {a: {provider: local, model: extractive}}\nroutes: {a: {targets: [local/extractive]}}")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("providers: {a: {kind: vlm, base_url: 'http://x'}}", "no provider kind 'vlm'.*Did you mean 'vllm'"),
        ("providers: {a: {kind: vllm}}", "base_url must be given"),
        ("providers: {a: {base_url: 'http://x', api_key_env: A, api_key_envs: [B]}}", "either"),
        ("providers: {a: {base_url: 'http://x', api_key_envs: [B, B]}}", "twice"),
        ("providers: {a: {base_url: 'http://x', lacks: [sead]}}", "'sead' is no capability.*'seed'"),
        ("providers: {a: {base_url: 'http://x', options: {a: [1]}}}", "single values"),
        ("models: {a: {provider: opnai, model: x}}", "Did you mean 'openai'"),
    ],
)
def test_a_mistake_in_a_provider_is_told(make, yaml, words):
    with pytest.raises(ConfigError, match=words):
        make(yaml)


def test_a_price_in_the_wrong_unit_stops_start_up(make):
    per_thousand_times_too_dear = "{provider: openai, model: gpt-4o-mini, price: {input: 150.1, output: 1}}"

    with pytest.raises(ConfigError, match=r"line 1.*1000 times the listed.*per million"):
        make(f"models: {{small: {per_thousand_times_too_dear}}}", KEYS)


def test_a_dear_price_that_may_be_meant_is_taken(make):
    catalog = make(
        "models: {s: {provider: openai, model: gpt-4o-mini, price: {input: 15, output: 60}}}", KEYS
    )

    price = catalog.resolve("s").price

    assert price is not None
    assert (price.input_nusd, price.source) == (15_000, "mainstay.yaml, line 1")


def test_a_price_of_writing_the_cache_is_read(make):
    yaml = "models: {s: {provider: openai, model: m, price: {input: 1, output: 2, cache_write: 1.25}}}"

    price = make(yaml, KEYS).resolve("s").price

    assert price is not None
    assert price.cache_write_nusd == 1250


def test_what_a_model_lacks_narrows_its_target(make):
    catalog = make(
        """
providers: {gpu: {kind: vllm, base_url: "http://h/v1", lacks: [logit_bias]}}
models:
  a: {provider: gpu, model: qwen, lacks: [images]}
  b: {provider: gpu, model: qwen, supports: [tools, seed], max_output_tokens: 99}
""",
        KEYS,
    )

    assert isinstance(catalog.resolve("a").provider, Vllm)
    assert catalog.resolve("gpu/qwen").capabilities == ALL - {"files", "logit_bias"}
    assert catalog.resolve("a").capabilities == ALL - {"files", "logit_bias", "images"}
    assert catalog.resolve("b").capabilities == {"tools", "seed"}
    assert catalog.resolve("b").max_output_tokens == 99


async def test_azure_is_set_up_with_its_options_and_a_token_from_a_variable(make):
    async with AzureServer() as azure:
        catalog = make(
            f"""
providers:
  work:
    kind: azure
    base_url: {azure.endpoint}
    options: {{api_version: 2024-10-21, entra_token_env: AZURE_TOKEN}}
""",
            {"AZURE_TOKEN": "entra-token"},
        )
        target = catalog.resolve("work/my-gpt")

        answer = await target.provider.complete(ChatCall(target.model, (ChatMessage("user", "Hi"),)), 5.0)

    assert isinstance(target.provider, AzureOpenAi)
    assert answer.choices[0].text == "Hello world"
    assert "entra-token" not in repr(vars(target.provider))


def test_a_secret_option_that_is_not_set_names_its_variable(make):
    catalog = make(
        "providers: {w: {kind: azure, base_url: 'https://x', options: {entra_token_env: NOT_SET}}}"
    )

    with pytest.raises(ConfigError, match="NOT_SET"):
        catalog.resolve("w/m")


def test_a_name_that_is_nothing_is_no_route(make):
    with pytest.raises(UnknownModel, match="fast"):
        make("routes: {fast: {targets: [local/extractive]}}").route("fasst")
