"""SGLang's OpenAI-compatible server, and whether it is well and how busy.

Source: SGLang documentation, "OpenAI APIs" and "Production Metrics". The counts are there when the server was
started with `--enable-metrics`. Fields beyond OpenAI's (`min_p`, `regex`, `ebnf`, …) pass through as they come.
"""

from __future__ import annotations

from typing import ClassVar

from mainstay.models.capabilities import ALL
from mainstay.models.providers.openai import OpenAiCompatible
from mainstay.models.providers.openai_encode import Dialect
from mainstay.models.providers.probing import probe
from mainstay.models.providers.registry import PROVIDER_KINDS
from mainstay.models.types import Capability, Health


@PROVIDER_KINDS.register("sglang")
class SgLang(OpenAiCompatible):
    """One server. `base_url` ends in /v1, as for any client."""

    supports: frozenset[Capability] = ALL - {"files", "audio"}
    dialect: ClassVar[Dialect] = Dialect(reasoning_field="reasoning_content")

    async def health(self, timeout_s: float) -> Health:
        """`/health`, which costs nothing (`/health_generate` writes a token), with the counts by `/metrics`."""
        return await probe(
            self._upstream.client,
            self._base_url.removesuffix("/v1"),
            self._auth(),
            timeout_s,
            health_path="/health",
            running_gauge="sglang:num_running_reqs",
            waiting_gauge="sglang:num_queue_reqs",
        )
