"""vLLM's OpenAI-compatible server, and whether it is well and how busy.

Source: vLLM documentation, "OpenAI-Compatible Server" and "Production Metrics". A LoRA adapter that the server
was started with is a model name like any other. Fields beyond OpenAI's (`min_p`, `repetition_penalty`,
`structured_outputs`, `chat_template_kwargs`, …) pass through as they come.
"""

from __future__ import annotations

from typing import ClassVar

from mainstay.models.capabilities import ALL
from mainstay.models.providers.openai import OpenAiCompatible
from mainstay.models.providers.openai_encode import Dialect
from mainstay.models.providers.probing import probe
from mainstay.models.providers.registry import PROVIDER_KINDS
from mainstay.models.types import Capability, Health


@PROVIDER_KINDS.register("vllm")
class Vllm(OpenAiCompatible):
    """One server. `base_url` ends in /v1, as for any client."""

    supports: frozenset[Capability] = ALL - {"files"}
    dialect: ClassVar[Dialect] = Dialect(reasoning_field="reasoning")

    async def health(self, timeout_s: float) -> Health:
        """`/health`, with the requests that run and wait by `/metrics`."""
        return await probe(
            self._upstream.client,
            self._base_url.removesuffix("/v1"),
            self._auth(),
            timeout_s,
            health_path="/health",
            running_gauge="vllm:num_requests_running",
            waiting_gauge="vllm:num_requests_waiting",
        )
