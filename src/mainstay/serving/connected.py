"""Notices clients that leave before their answer is complete, and ends the work behind their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from mainstay.serving.http import ClientLeft, Receive

LOOK_EVERY_S = 0.025
"""A client that leaves is noticed within 100 ms; up to twice this of it is saved where an answer comes at once."""


class Connections:
    """The requests whose clients are not watched yet: of one event loop, under one timer.

    A watch is a task, and most answers come before one would pay. So a request's watch begins at the second tick
    after it came, and a request that ends sooner costs neither a task nor a timer of its own.
    """

    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self._look_every_s = look_every_s
        self._unwatched: set[WhileConnected] = set()
        self._ticking: asyncio.AbstractEventLoop | None = None

    def watch(self, receive: Receive, work: asyncio.Task[object]) -> WhileConnected:
        """Within the block `work`, the current task, is cancelled when the client leaves; then ClientLeft is raised.

        Enter it after the body was read: whatever `receive` brings then is the disconnect. Gives a way to end the
        block as if the client had left.
        """
        return WhileConnected(self, receive, work)

    def add(self, request: WhileConnected) -> None:
        self._unwatched.add(request)
        loop = asyncio.get_running_loop()
        if self._ticking is not loop:
            self._ticking = loop
            loop.call_later(self._look_every_s, self._tick, loop)

    def discard(self, request: WhileConnected) -> None:
        self._unwatched.discard(request)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        due = [request for request in self._unwatched if request.is_due()]
        for request in due:
            self._unwatched.discard(request)
            request.begin(loop)
        if self._unwatched:
            loop.call_later(self._look_every_s, self._tick, loop)
        else:
            self._ticking = None


class WhileConnected:
    """See Connections.watch."""

    __slots__ = ("_connections", "_left", "_receive", "_ticks", "_watch", "_work")

    def __init__(self, connections: Connections, receive: Receive, work: asyncio.Task[object]) -> None:
        self._connections = connections
        self._receive = receive
        self._work = work
        self._ticks = 0
        self._left = False
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Callable[[], None]:
        self._connections.add(self)
        return self._leave

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connections.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._left and isinstance(error, asyncio.CancelledError) and self._work.uncancel() == 0:
            raise ClientLeft from None

    def is_due(self) -> bool:
        self._ticks += 1
        return self._ticks == 2

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._left and not self._work.done():
            self._left = True
            self._work.cancel()
