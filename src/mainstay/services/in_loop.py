"""What lives in the event loop of a serving process: probes of model servers, engines, shared limits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mainstay.services.container import Services
from mainstay.serving import Prober

GC_THRESHOLDS = (5000, 1_000_000, 1_000_000)
"""A request that ends well leaves no garbage cycle, so the collector mostly looks in vain, and every request waits
while it looks. Young objects are looked at once, a few at a time; older ones, such as cached answers, not in passing."""

COLLECT_EVERY_S = 30.0
COLLECT_AT_LEAST_EVERY = 20
"""A full look waits for a moment without requests, but not for ever."""


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
    watching.append(asyncio.create_task(collect_when_quiet(services), name="mainstay-collector"))
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        await prober.stop()
        await services.catalog.close()
        await services.deps.limiter.close()


async def collect_when_quiet(services: Services) -> None:
    """Look for garbage among old objects when no request is under way, which takes some hundredths of a second."""
    put_off = 0
    while True:
        await asyncio.sleep(COLLECT_EVERY_S)
        put_off += 1
        if services.gateway.shutdown.under_way == 0 or put_off >= COLLECT_AT_LEAST_EVERY:
            gc.collect()
            put_off = 0


def settle_memory() -> None:
    """What is there now stays: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
