"""The registry of provider kinds that are reached over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mainstay.core.registry import Registry
from mainstay.core.secret import Secret
from mainstay.models.types import ChatProvider


@dataclass(frozen=True, slots=True)
class HttpProviderSettings:
    """Where a provider is and how patient we are.

    `max_tokens_field`: what the vendor calls the limit of output tokens. `idle_timeout_s`: longest silence
    between two events once the answer has begun. `options` are what only this kind of provider knows, e.g.
    Azure's `api_version` or Bedrock's `region`; secrets among them are Secret.
    """

    name: str
    base_url: str
    api_key: Secret | None = None
    max_tokens_field: str = "max_tokens"
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0
    options: Mapping[str, str | Secret] = field(default_factory=dict)

    def option(self, name: str) -> str | None:
        """An option's value, revealed when it is secret; None when it is not set or empty."""
        value = self.options.get(name)
        return (value.reveal() if isinstance(value, Secret) else value) or None


PROVIDER_KINDS: Final[Registry[Callable[[HttpProviderSettings], ChatProvider]]] = Registry(
    "provider kind", "mainstay.providers"
)
