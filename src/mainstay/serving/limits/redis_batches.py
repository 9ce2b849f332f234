"""Operations on their way to Redis: gathered into batches, one round trip at a time, behind a breaker.

While a batch travels the next one gathers, so that a busy process pays for few round trips. One failure opens
the breaker: everything waiting fails at once, and so does what comes, until a probe in the background succeeds.
What must not be lost (settlements and cancellations) waits and is repeated: both are safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits import refusals
from mainstay.serving.limits.redis_store import Operation, RedisStore, Result, StoreFailed

log = logging.getLogger(__name__)

_BATCH = 64
_PROBE_AFTER_S, _PROBE_AFTER_S_MAX = 0.05, 1.0


@dataclass(slots=True)
class _Waiting:
    """`answer` None: nobody waits, and it is repeated until it succeeds."""

    operation: Operation
    answer: asyncio.Future[Result] | None
    done: Callable[[], None] | None = None


class Batches:
    """Belongs to the event loop in which it is first used."""

    def __init__(self, store: RedisStore, timeout_s: float, clock: Callable[[], int]) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._sending = False
        self.down = False
        self.outages = 0
        self.round_trips = 0
        self.redis_us: int | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None:
            self.loop = loop
            self._task = loop.create_task(self._run())
            self._wake.set()
        elif self.loop is not loop:
            raise RuntimeError("a RedisLimiter belongs to the event loop in which it was first used")

    async def call(self, operation: Operation) -> Result:
        """Raises BudgetStoreUnavailable: at once while Redis is known to be away."""
        if self.down:
            raise refusals.store_unavailable("Redis is not reachable")
        self.start()
        assert self.loop is not None
        answer: asyncio.Future[Result] = self.loop.create_future()
        waiting = _Waiting(operation, answer)
        self._queue.append(waiting)
        self._wake.set()
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled():  # delivered in the very moment in which the caller left
                self._cancel(waiting)
            raise

    def tell(self, operation: Operation, done: Callable[[], None] | None = None) -> None:
        """Sent as soon as can be, again and again until it succeeds; then `done`. From any thread."""
        self._queue.append(_Waiting(operation, None, done))
        if self.loop is None or self.loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self._wake.set()
        else:
            self.loop.call_soon_threadsafe(self._wake.set)

    async def close(self) -> None:
        """Gives what waits one time-out to leave, unless Redis is away."""
        if self._task is not None:
            for _ in range(50):
                if self.down or not (self._queue or self._sending):
                    break
                await asyncio.sleep(self._timeout_s / 50)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._fail_waiting()
        await self._store.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._sending = True
                if not await self._send(self._next()):
                    await self._recover()
                self._sending = False

    def _next(self) -> list[_Waiting]:
        count = min(len(self._queue), _BATCH)
        batch = [self._queue.popleft() for _ in range(count)]
        return [waiting for waiting in batch if waiting.answer is None or not waiting.answer.done()]

    async def _send(self, batch: list[_Waiting]) -> bool:
        try:
            results = await self._exchange([waiting.operation for waiting in batch])
        except StoreFailed as error:
            self._failed(batch, error)
            return False
        except asyncio.CancelledError:  # closing: what is not confirmed stays in the outbox
            self._put_back(batch)
            raise
        for waiting, result in zip(batch, results, strict=True):
            self._deliver(waiting, result)
        return True

    async def _exchange(self, operations: list[Operation]) -> list[Result]:
        self.round_trips += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                self.redis_us, results = await self._store.exchange(self._clock(), operations)
        except TimeoutError as error:
            raise StoreFailed(f"no answer within {self._timeout_s} s") from error
        return results

    def _deliver(self, waiting: _Waiting, result: Result) -> None:
        if result[0] == "error":
            log.error("Redis could not do %s: %s", waiting.operation[0], result[1])
        if waiting.answer is None:
            if waiting.done is not None and result[0] != "error":
                waiting.done()
        elif waiting.answer.done():  # who asked has gone: nobody will settle this
            self._cancel(waiting)
        elif result[0] == "error":
            waiting.answer.set_exception(refusals.store_unavailable("Redis answered with an error"))
        else:
            waiting.answer.set_result(result)

    def _failed(self, batch: list[_Waiting], error: StoreFailed) -> None:
        self.outages += not self.down
        self.down = True
        log.error("limits: Redis failed: %s", error)
        self._put_back(batch)

    def _put_back(self, batch: list[_Waiting]) -> None:
        for waiting in reversed(batch):
            if waiting.answer is None:
                self._queue.appendleft(waiting)
            else:
                self._cancel(waiting)
                _refuse(waiting)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        for waiting in [each for each in self._queue if each.answer is not None]:
            self._queue.remove(waiting)
            _refuse(waiting)

    def _cancel(self, waiting: _Waiting) -> None:
        """It may have been done although its answer is lost; if it still travels, it will be refused."""
        if waiting.operation[0] == "reserve":
            self._queue.appendleft(_Waiting(["cancel", waiting.operation[1]], None))
            self._wake.set()

    async def _recover(self) -> None:
        after_s = _PROBE_AFTER_S
        while self.down:
            await asyncio.sleep(after_s)
            after_s = min(2 * after_s, _PROBE_AFTER_S_MAX)
            try:
                await self._exchange([])
                self.down = False
                log.warning("limits: Redis is back")
            except StoreFailed as error:
                log.debug("limits: Redis is still away: %s", error)


def _refuse(waiting: _Waiting) -> None:
    if waiting.answer is not None and not waiting.answer.done():
        error: BudgetStoreUnavailable = refusals.store_unavailable("Redis is not reachable")
        waiting.answer.set_exception(error)
