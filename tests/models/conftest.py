"""Fixtures of the models tests: the server of a vendor, and the provider that speaks to it.

A module says which by its fixture `adapter`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from models_adapters import Adapter


@pytest_asyncio.fixture
async def upstream(adapter: Adapter) -> AsyncIterator[Any]:
    """Greets, until it is told what to play."""
    async with adapter.server() as server:
        server.plays(adapter.greets())
        yield server


@pytest_asyncio.fixture
async def provider(adapter: Adapter, upstream: Any) -> AsyncIterator[Any]:
    provider = adapter.make(upstream.base_url)
    yield provider
    await provider.close()
