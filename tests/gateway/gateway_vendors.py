"""The vendors behind the gateway, by name, and the keys they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway_said import Vendor
from gateway_vendors_blocks import AnthropicVendor, BedrockVendor, GeminiVendor, OllamaVendor
from gateway_vendors_openai import AzureVendor, OpenAiVendor, WithoutSchemas

from support import bedrock_server


def vendors() -> dict[str, Vendor]:
    """All of them by name; their servers are started by the stage."""
    kinds: tuple[type[Vendor], ...] = (
        OpenAiVendor,
        AzureVendor,
        AnthropicVendor,
        BedrockVendor,
        GeminiVendor,
        OllamaVendor,
        WithoutSchemas,
    )
    return {kind.name: kind() for kind in kinds}


KEYS: Final[Mapping[str, str]] = {
    "GATEWAY_TEST_KEY": "sk-upstream",
    "GATEWAY_TEST_AZURE_KEY": "azure-key",
    "GATEWAY_TEST_BEDROCK_KEY": bedrock_server.BEARER,
}
"""What the project file's variables hold."""
