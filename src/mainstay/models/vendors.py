"""Hosted vendors we know without configuration. Data alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.http.types import HttpError
from mainstay.models.limitations import Lacks
from mainstay.models.types import Capability

OLLAMA: Final = "ollama"
_OLLAMA_URL: Final = "http://127.0.0.1:11434"
_LISTING_BYTES_MAX: Final = 4 << 20


_BEYOND: Final[Lacks] = frozenset({"top_k", "files", "audio"})
"""What OpenAI's own API or few others take. A vendor lacks these unless its documentation says otherwise."""
_SAMPLES_TOP_K: Final[Lacks] = frozenset({"files", "audio"})


@dataclass(frozen=True, slots=True)
class Vendor:
    """A hosted service that is known once its key is set.

    `price_id`: its name in genai-prices, None when it has none. `kind`: how it is spoken to. `lacks`: what it is
    documented not to take, or what no description of its API lists; no call that needs it is sent there.
    `options`: how its requests differ (see Dialect). `source`: the vendor's own documentation, to check against.
    """

    name: str
    base_url: str
    key_env: str
    price_id: str | None = None
    max_tokens_field: str = "max_tokens"
    lacks: Lacks = _BEYOND
    options: Mapping[str, str] = field(default_factory=dict)
    kind: str = "openai"
    source: str = ""


def _lacks(*names: Capability) -> Lacks:
    return _BEYOND | frozenset(names)


VENDORS: Final[Mapping[str, Vendor]] = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            "openai",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            "openai",
            # Reasoning models refuse `max_tokens`; the newer name works for all of OpenAI's chat models.
            "max_completion_tokens",
            lacks=frozenset({"top_k"}),
            options={"developer_role": "true"},
            source="platform.openai.com/docs/api-reference/chat",
        ),
        Vendor(
            "anthropic",
            "https://api.anthropic.com",
            "ANTHROPIC_API_KEY",
            "anthropic",
            lacks=frozenset(),
            kind="anthropic",
            source="docs.claude.com/en/api/messages",
        ),
        Vendor(
            "groq",
            "https://api.groq.com/openai/v1",
            "GROQ_API_KEY",
            "groq",
            "max_completion_tokens",
            lacks=_lacks("logprobs", "logit_bias", "n"),
            source="console.groq.com/docs/openai",
        ),
        Vendor(
            "mistral",
            "https://api.mistral.ai/v1",
            "MISTRAL_API_KEY",
            "mistral",
            lacks=_lacks("logprobs", "logit_bias"),
            # The final chunk of a stream has the usage without being asked.
            options={"stream_usage": "false", "seed_field": "random_seed"},
            source="docs.mistral.ai/api",
        ),
        Vendor(
            "together",
            "https://api.together.xyz/v1",
            "TOGETHER_API_KEY",
            "together",
            lacks=_SAMPLES_TOP_K,
            source="docs.together.ai/reference/chat-completions-1",
        ),
        Vendor(
            "deepseek",
            "https://api.deepseek.com/v1",
            "DEEPSEEK_API_KEY",
            "deepseek",
            lacks=_lacks("n", "seed", "logit_bias", "json_schema", "images", "parallel_tool_calls"),
            options={"reasoning_field": "reasoning_content"},
            source="api-docs.deepseek.com/api/create-chat-completion",
        ),
        Vendor(
            "openrouter",
            "https://openrouter.ai/api/v1",
            "OPENROUTER_API_KEY",
            "openrouter",
            lacks=frozenset({"n"}),
            options={"cache_control": "true", "reasoning_field": "reasoning"},
            source="openrouter.ai/docs/api-reference/parameters",
        ),
        Vendor(
            "fireworks",
            "https://api.fireworks.ai/inference/v1",
            "FIREWORKS_API_KEY",
            "fireworks",
            lacks=_SAMPLES_TOP_K,
            source="docs.fireworks.ai/api-reference/post-chatcompletions",
        ),
        Vendor(
            "xai",
            "https://api.x.ai/v1",
            "XAI_API_KEY",
            "x-ai",
            "max_completion_tokens",
            source="docs.x.ai/docs/api-reference",
        ),
        Vendor(
            "cerebras",
            "https://api.cerebras.ai/v1",
            "CEREBRAS_API_KEY",
            "cerebras",
            "max_completion_tokens",
            lacks=_lacks("penalties", "logit_bias", "parallel_tool_calls", "n"),
            source="inference-docs.cerebras.ai/resources/openai",
        ),
        Vendor(
            "moonshot",
            "https://api.moonshot.ai/v1",
            "MOONSHOT_API_KEY",
            "moonshotai",
            lacks=_lacks("logprobs", "logit_bias", "seed"),
            options={"reasoning_field": "reasoning_content"},
            source="platform.moonshot.ai/docs/api/chat",
        ),
        Vendor(
            "gemini",
            "https://generativelanguage.googleapis.com",
            "GEMINI_API_KEY",
            "google",
            lacks=frozenset(),
            kind="gemini",
            source="ai.google.dev/api/generate-content",
        ),
        Vendor(
            "perplexity",
            "https://api.perplexity.ai",
            "PERPLEXITY_API_KEY",
            "perplexity",
            lacks=_SAMPLES_TOP_K | {"tools", "parallel_tool_calls", "n", "seed", "logprobs", "logit_bias"},
            source="docs.perplexity.ai/api-reference",
        ),
        Vendor(
            "cohere",
            "https://api.cohere.ai/compatibility/v1",
            "COHERE_API_KEY",
            "cohere",
            lacks=_lacks("n", "logit_bias", "parallel_tool_calls"),
            source="docs.cohere.com/docs/compatibility-api",
        ),
        Vendor(
            "minimax",
            "https://api.minimax.io/v1",
            "MINIMAX_API_KEY",
            "minimax",
            "max_completion_tokens",
            lacks=_lacks(
                "n",
                "seed",
                "penalties",
                "logprobs",
                "logit_bias",
                "reasoning",
                "json_object",
                "json_schema",
                "parallel_tool_calls",
            ),
            source="platform.minimax.io/docs/api-reference/text-openai-api",
        ),
        Vendor(
            "sambanova",
            "https://api.sambanova.ai/v1",
            "SAMBANOVA_API_KEY",
            lacks=_lacks("logprobs", "logit_bias", "n", "penalties"),
            source="docs.sambanova.ai/docs/en/features/openai-compatibility",
        ),
        # From here on the vendors' documentation names an OpenAI-compatible endpoint and no limits of it.
        Vendor(
            "deepinfra",
            "https://api.deepinfra.com/v1/openai",
            "DEEPINFRA_API_KEY",
            lacks=_SAMPLES_TOP_K,
            source="deepinfra.com/docs/openai_api",
        ),
        Vendor(
            "novita",
            "https://api.novita.ai/openai",
            "NOVITA_API_KEY",
            "novita",
            lacks=_SAMPLES_TOP_K,
            source="novita.ai/docs/guides/introduction",
        ),
        Vendor(
            "nebius",
            "https://api.tokenfactory.nebius.com/v1",
            "NEBIUS_API_KEY",
            source="docs.tokenfactory.nebius.com",
        ),
        Vendor(
            "nvidia",
            "https://integrate.api.nvidia.com/v1",
            "NVIDIA_API_KEY",
            source="docs.api.nvidia.com/nim",
        ),
        Vendor(
            "baseten",
            "https://inference.baseten.co/v1",
            "BASETEN_API_KEY",
            "baseten",
            source="docs.baseten.co/inference/model-apis/overview",
        ),
        Vendor(
            "huggingface",
            "https://router.huggingface.co/v1",
            "HF_TOKEN",
            source="huggingface.co/docs/inference-providers",
        ),
        Vendor(
            "alibaba",
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            "DASHSCOPE_API_KEY",
            lacks=_SAMPLES_TOP_K,
            source="www.alibabacloud.com/help/en/model-studio",
        ),
        Vendor("zai", "https://api.z.ai/api/paas/v4", "ZHIPU_API_KEY", "zai", source="docs.z.ai"),
        Vendor(
            "zhipuai",
            "https://open.bigmodel.cn/api/paas/v4",
            "ZHIPU_API_KEY",
            "zhipuai",
            source="docs.bigmodel.cn",
        ),
        Vendor(
            "siliconflow",
            "https://api.siliconflow.com/v1",
            "SILICONFLOW_API_KEY",
            lacks=_SAMPLES_TOP_K,
            source="docs.siliconflow.com",
        ),
        Vendor(
            "scaleway",
            "https://api.scaleway.ai/v1",
            "SCALEWAY_API_KEY",
            source="www.scaleway.com/en/docs/generative-apis",
        ),
        Vendor(
            "ovhcloud",
            "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
            "OVHCLOUD_API_KEY",
            "ovhcloud",
            source="www.ovhcloud.com/en/public-cloud/ai-endpoints",
        ),
        Vendor(
            "stackit",
            "https://api.openai-compat.model-serving.eu01.onstackit.cloud/v1",
            "STACKIT_API_KEY",
            source="docs.stackit.cloud/products/data-and-ai/ai-model-serving",
        ),
        Vendor(
            "upstage", "https://api.upstage.ai/v1/solar", "UPSTAGE_API_KEY", source="developers.upstage.ai"
        ),
        Vendor(
            "friendli",
            "https://api.friendli.ai/serverless/v1",
            "FRIENDLI_TOKEN",
            lacks=_SAMPLES_TOP_K,
            source="friendli.ai/docs/guides/serverless_endpoints",
        ),
        Vendor(
            "vultr", "https://api.vultrinference.com/v1", "VULTR_API_KEY", source="api.vultrinference.com"
        ),
        Vendor(
            "wandb",
            "https://api.inference.wandb.ai/v1",
            "WANDB_API_KEY",
            source="docs.wandb.ai/guides/integrations/inference",
        ),
        Vendor(
            "digitalocean",
            "https://inference.do-ai.run/v1",
            "DIGITALOCEAN_ACCESS_TOKEN",
            source="docs.digitalocean.com/products/gradient-ai-platform",
        ),
        Vendor(
            "github",
            "https://models.github.ai/inference",
            "GITHUB_TOKEN",
            source="docs.github.com/en/github-models",
        ),
        Vendor("poe", "https://api.poe.com/v1", "POE_API_KEY", source="creator.poe.com/docs"),
        Vendor(
            "llama",
            "https://api.llama.com/compat/v1",
            "LLAMA_API_KEY",
            source="llama.developer.meta.com/docs",
        ),
        Vendor("chutes", "https://llm.chutes.ai/v1", "CHUTES_API_KEY", source="llm.chutes.ai/v1/models"),
        Vendor(
            "clarifai",
            "https://api.clarifai.com/v2/ext/openai/v1",
            "CLARIFAI_PAT",
            source="docs.clarifai.com/compute/inference",
        ),
        Vendor("gmi", "https://api.gmi-serving.com/v1", "GMICLOUD_API_KEY", source="docs.gmicloud.ai"),
        Vendor(
            "inception",
            "https://api.inceptionlabs.ai/v1",
            "INCEPTION_API_KEY",
            source="docs.inceptionlabs.ai",
        ),
        Vendor(
            "ionet",
            "https://api.intelligence.io.solutions/api/v1",
            "IOINTELLIGENCE_API_KEY",
            source="io.net/docs/guides/intelligence",
        ),
        Vendor("morph", "https://api.morphllm.com/v1", "MORPH_API_KEY", source="docs.morphllm.com"),
        Vendor("ollama-cloud", "https://ollama.com/v1", "OLLAMA_API_KEY", source="docs.ollama.com/cloud"),
        Vendor("requesty", "https://router.requesty.ai/v1", "REQUESTY_API_KEY", source="docs.requesty.ai"),
        Vendor(
            "stepfun", "https://api.stepfun.com/v1", "STEPFUN_API_KEY", source="platform.stepfun.com/docs"
        ),
        Vendor("tinfoil", "https://inference.tinfoil.sh/v1", "TINFOIL_API_KEY", source="docs.tinfoil.sh"),
        Vendor("xiaomi", "https://api.xiaomimimo.com/v1", "XIAOMI_API_KEY", source="platform.xiaomimimo.com"),
    )
}


def ollama_url(environment: Mapping[str, str]) -> str:
    """Ollama's address without a path, from OLLAMA_HOST as Ollama itself reads it, else its default."""
    host = environment.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not host:
        return _OLLAMA_URL
    address = host if "://" in host else f"http://{host}"
    scheme, _, rest = address.partition("://")
    rest = rest.replace("0.0.0.0", "127.0.0.1", 1)  # noqa: S104 - what a server listens on is no address to call
    return f"{scheme}://{rest}" if ":" in rest else f"{scheme}://{rest}:11434"


async def ollama_models(environment: Mapping[str, str], timeout_s: float = 1.0) -> tuple[str, ...] | None:
    """Names of the models a running Ollama has; None when none answers in time."""
    client = PooledHttpClient()
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.request("GET", f"{ollama_url(environment)}/api/tags", headers={})
            listed = orjson.loads(await response.read(_LISTING_BYTES_MAX))["models"]
            return tuple(str(model["name"]) for model in listed) if response.status == 200 else None
    except (TimeoutError, HttpError, ValueError, KeyError, TypeError):
        return None
    finally:
        await client.close()


async def ollama_available(environment: Mapping[str, str], timeout_s: float = 1.0) -> bool:
    """Whether an Ollama answers at its address."""
    return await ollama_models(environment, timeout_s) is not None
