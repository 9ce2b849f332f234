"""Sends a request to a target: attempts share one budget and one deadline, and end with the first word.

Until a target has said something, nothing is given on, so that another may take its place unseen.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import AsyncGenerator

from mainstay.models.types import Completion, Delta
from mainstay.serving.routing.alarm import Alarms
from mainstay.serving.routing.attempts import Attempts
from mainstay.serving.routing.fallbacks import Clock, Parts, ResolveRoute, Sleep
from mainstay.serving.routing.policies import Router
from mainstay.serving.routing.types import Observer, Plan, Prepare


class Dispatcher:
    """Runs plans. `resolve_route` finds a route's `context_fallback`; `clock` None: the running loop's own."""

    def __init__(
        self,
        router: Router,
        resolve_route: ResolveRoute,
        sleep: Sleep = asyncio.sleep,
        clock: Clock | None = None,
    ) -> None:
        self.router = router
        self._parts = Parts(router, resolve_route, sleep, clock, Alarms())

    async def stream(self, plan: Plan, prepare: Prepare, observer: Observer) -> AsyncGenerator[Delta]:
        """Relay one answer from its first content on. Close it on every way out: that hangs up at once.

        Raises what `prepare` raises; Unsupported and PromptTooLong before any attempt; UpstreamFailed with all
        attempts, the first cause when it was the request's own fault; DeadlineExceeded. After the first
        delta: UpstreamFailed or DeadlineExceeded. What follows a finish_reason can fail no answer.
        """
        run = Attempts(self._parts, plan, observer, streamed=True)
        alarm = run.alarm
        try:
            held = await run.first_words(prepare)
            stream = run.answer
            alarm.task = None
            for delta in held:
                yield delta
            alarm.task = current_task()
            if not alarm.rang:
                async for delta in stream:
                    alarm.task = None
                    if delta.finish_reason is not None or delta.index:
                        run.note(delta)
                    yield delta
                    if alarm.rang:
                        break
                    alarm.task = current_task()
            run.ended()
        except asyncio.CancelledError:
            if not alarm.owns_cancellation():
                raise
            run.late()
        except Exception as error:
            run.broke(error)
        finally:
            await run.close()

    async def complete(self, plan: Plan, prepare: Prepare, observer: Observer) -> Completion:
        """One whole answer. Raises as `stream` does; the route's first-token timeout does not apply."""
        run = Attempts(self._parts, plan, observer, streamed=False)
        try:
            return await run.whole_answer(prepare)
        except asyncio.CancelledError:
            if not run.alarm.owns_cancellation():
                raise
            raise run.deadline_error() from None
        finally:
            await run.close()
