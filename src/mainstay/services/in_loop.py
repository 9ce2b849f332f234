"""What lives in the event loop of a serving process: probes of model servers, engines, shared limits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mainstay.services.container import Services
from mainstay.serving import Prober

GC_THRESHOLDS = (20_000, 20, 50)
"""A request makes hundreds of short-lived objects; Python's own thresholds look at all of them far too often."""


@asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """Start what needs a running loop; at the end let go of it, after requests have ended."""
    prober = Prober(services.deps.dispatcher.router.breakers)
    prober.start()
    services.deps.limiter.start()
    watching = [
        asyncio.create_task(watch.run(), name=f"mainstay-watch-{watch.path.name}")
        for watch in services.watches
    ]
    settle_memory()
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching)
        await prober.stop()
        await services.catalog.close()
        await services.deps.limiter.close()


def settle_memory() -> None:
    """What is there now stays: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
