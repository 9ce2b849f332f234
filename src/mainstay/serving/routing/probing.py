"""Asks model servers in use how they are, so that a dead one is left before a request finds out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mainstay.models.errors import ProviderError
from mainstay.models.types import Health, Probed
from mainstay.serving.routing.breakers import Breakers, TargetState
from mainstay.serving.routing.fallbacks import Sleep

log = logging.getLogger(__name__)

INTERVAL_S: Final = 3.0
TIMEOUT_S: Final = 2.0
USED_WITHIN_S: Final = 60.0
BAD_PROBES: Final = 2
"""One bad answer may be a hiccup; this many in a row take the server out."""


class Prober:
    """A background task over all Probed providers that were considered for a request in the last minute.

    Whoever owns the event loop starts and stops it. Breakers open after two bad probes in a row; a good one
    lets the next request try a target whose breaker is open. Running and waiting counts feed the load.
    """

    def __init__(
        self,
        breakers: Breakers,
        interval_s: float = INTERVAL_S,
        timeout_s: float = TIMEOUT_S,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._breakers = breakers
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._bad: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop. Starting twice changes nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="mainstay-prober")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def probe_once(self) -> None:
        """Ask all of them once, at the same time, and take the answers into account."""
        asked = self._breakers.probed(self._now_s(), USED_WITHIN_S)
        answers = await asyncio.gather(*(self._ask(provider) for provider, _ in asked))
        self._bad = {id(provider): self._bad.get(id(provider), 0) for provider, _ in asked}
        for (provider, states), health in zip(asked, answers, strict=True):
            bad = self._bad[id(provider)] = 0 if health.ok else self._bad[id(provider)] + 1
            self._take(states, health, bad)

    async def _run(self) -> None:
        while True:
            await self._sleep(self._interval_s)
            try:
                await self.probe_once()
            except Exception:  # the task's outermost frame: probing goes on
                log.exception("probing model servers failed")

    async def _ask(self, provider: Probed) -> Health:
        """A server that does not answer is not well. What a probe raises is logged, never passed on."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await provider.health(self._timeout_s)
        except (ProviderError, OSError) as error:  # TimeoutError is an OSError
            log.info("a model server did not say how it is: %s", error)
        except Exception:  # a fault of an adapter must not stop the others' probes
            log.exception("asking a model server how it is failed")
        return Health(ok=False)

    def _take(self, states: list[TargetState], health: Health, bad: int) -> None:
        now_s = self._now_s()
        for state in states:
            state.health, state.health_at_s = health, now_s
            if health.ok:
                state.breaker.invite(now_s)
            elif bad >= BAD_PROBES:
                state.breaker.trip(now_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()
