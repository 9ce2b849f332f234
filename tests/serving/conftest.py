"""Fixtures of the serving tests: a data plane of small parts, and a real server for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from serving_door import served
from serving_plane import Plane, build_plane

from mainstay.serving.gateway import Gateway


@pytest.fixture
def plane() -> Plane:
    return build_plane()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Gateway], Any]]:
    """Starts a gateway on a free port under a real uvicorn; gives its base URL."""
    async with AsyncExitStack() as stack:
        yield lambda gateway: stack.enter_async_context(served(gateway))
