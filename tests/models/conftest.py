"""Fixtures of the models tests: a scripted upstream, and a provider pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from mainstay.core.secret import Secret
from mainstay.models.providers import HttpProviderSettings, OpenAiCompatible
from support.openai_server import OpenAiServer


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[OpenAiServer]:
    async with OpenAiServer() as server:
        yield server


@pytest_asyncio.fixture
async def provider(upstream: OpenAiServer) -> AsyncIterator[OpenAiCompatible]:
    settings = HttpProviderSettings(
        "vendor", upstream.base_url, Secret("sk-test-key"), connect_timeout_s=2.0, idle_timeout_s=0.3
    )
    provider = OpenAiCompatible(settings)
    yield provider
    await provider.close()
