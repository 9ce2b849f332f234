"""Ways to reach chat models, one file each, registered by the `kind` that configuration names.

A third party adds a kind with an entry point in the group `mainstay.providers`; its module registers a
factory `(settings: HttpProviderSettings) -> ChatProvider` on `PROVIDER_KINDS`.
"""

from mainstay.models.providers.anthropic import Anthropic
from mainstay.models.providers.azure import AzureOpenAi
from mainstay.models.providers.bedrock import Bedrock
from mainstay.models.providers.extractive import Extractive
from mainstay.models.providers.gemini import Gemini
from mainstay.models.providers.llamacpp import LlamaCpp
from mainstay.models.providers.ollama import Ollama
from mainstay.models.providers.openai import OpenAiCompatible
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.sglang import SgLang
from mainstay.models.providers.vllm import Vllm

__all__ = [
    "PROVIDER_KINDS",
    "Anthropic",
    "AzureOpenAi",
    "Bedrock",
    "Extractive",
    "Gemini",
    "HttpProviderSettings",
    "LlamaCpp",
    "Ollama",
    "OpenAiCompatible",
    "SgLang",
    "Vllm",
]
