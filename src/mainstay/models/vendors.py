"""OpenAI-compatible vendors we know without configuration: base URL and the variable that holds the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson

OLLAMA: Final = "ollama"
_OLLAMA_URL: Final = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class Vendor:
    """`price_id`: the vendor's name in genai-prices, None when it has none."""

    name: str
    base_url: str
    key_env: str
    price_id: str | None
    max_tokens_field: str = "max_tokens"


VENDORS: Final[Mapping[str, Vendor]] = {
    vendor.name: vendor
    for vendor in (
        # Reasoning models refuse `max_tokens`; the newer name works for all of OpenAI's chat models.
        Vendor("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "openai", "max_completion_tokens"),
        Vendor("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq"),
        Vendor("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral"),
        Vendor("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY", "together"),
        Vendor("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek"),
        Vendor("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"),
        Vendor("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "fireworks"),
        Vendor("xai", "https://api.x.ai/v1", "XAI_API_KEY", "x-ai"),
        Vendor("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "cerebras"),
        Vendor("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshotai"),
        Vendor(
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "GEMINI_API_KEY",
            "google",
        ),
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
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{ollama_url(environment)}/api/tags") as response,
        ):
            listed = orjson.loads(await response.read())["models"] if response.status == 200 else None
            return None if listed is None else tuple(str(model["name"]) for model in listed)
    except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


async def ollama_available(environment: Mapping[str, str], timeout_s: float = 1.0) -> bool:
    """Whether an Ollama answers at its address."""
    return await ollama_models(environment, timeout_s) is not None
