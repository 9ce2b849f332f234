"""Fixtures of the models tests: the server of a vendor and the provider that speaks to it, and the local model.

A module says which vendor by its fixture `adapter`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from models_adapters import Adapter

from support.local_engine import smollm2


@pytest.fixture(scope="module")
def gguf(models_dir: Path) -> Path:
    """The real SmolLM2, for the tests of the local engine."""
    return smollm2(models_dir)


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
