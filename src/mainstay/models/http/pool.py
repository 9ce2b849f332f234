"""The connections to one origin, in one event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from mainstay.models.http.connection import Connection
from mainstay.models.http.dial import open_connection
from mainstay.models.http.types import HttpBroken, HttpUnreachable


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class OriginCounts:
    """Connections of one origin now: `open` in all, `idle` among them; `waiting` callers who have none."""

    open: int
    idle: int
    waiting: int


class OriginPool:
    """Bounded. The connection used last is used next; callers who wait are served in their order.

    `open` counts slots: connections and those being made. A slot that falls free goes to the first who waits.
    """

    def __init__(
        self,
        origin: Origin,
        context: ssl.SSLContext | None,
        *,
        connections_max: int,
        idle_s: float,
        buffer_bytes: int,
        headers_max_bytes: int,
    ) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.open = 0
        self.idle_s = idle_s
        self.buffer_bytes = buffer_bytes
        self.headers_max_bytes = headers_max_bytes
        self._context = context
        self._connections_max = connections_max
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._sockets: set[Connection] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._shut = False

    def counts(self) -> OriginCounts:
        return OriginCounts(self.open, len(self.idle), sum(not waiter.done() for waiter in self._waiters))

    async def acquire(self, timeout_s: float, *, fresh: bool = False) -> Connection:
        """An idle connection, else a new one, else the next that falls free; `fresh`: a new one if there is room.

        `timeout_s` bounds the wait for room, and again the connecting. Raises HttpUnreachable.
        """
        if self.idle and not fresh:
            return self.idle.pop()
        if self.open >= self._connections_max and self.idle:
            self.idle[0].abort()
        if self.open < self._connections_max:
            self.open += 1
            return await self._connect(timeout_s)
        return await self._wait(timeout_s) or await self._connect(timeout_s)

    async def _wait(self, timeout_s: float) -> Connection | None:
        """A connection that was given back; None for room to make one."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except BaseException as error:
            self._decline(waiter)
            if isinstance(error, TimeoutError):
                raise HttpUnreachable(
                    f"none of {self._connections_max} connections fell free within {timeout_s:g} s"
                ) from error
            raise

    def _decline(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Pass on what a caller was given in the moment he went away."""
        if not waiter.done():
            waiter.cancel()
        if waiter.cancelled():
            self._waiters = deque(other for other in self._waiters if other is not waiter)
        elif waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._leave()
            elif not connection.gone:
                self.free(connection)

    async def _connect(self, timeout_s: float) -> Connection:
        """A new connection, for a slot that is already counted."""
        try:
            connection = await open_connection(
                self._make, self.origin.host, self.origin.port, self._context, timeout_s
            )
        except BaseException:
            self._leave()
            raise
        if connection.gone:  # closed as soon as it was open: `exchange` says so
            self._leave()
            return connection
        self._sockets.add(connection)
        if self._shut:
            connection.abort()
            raise HttpUnreachable("the client was closed")
        return connection

    def _make(self) -> Connection:
        return Connection(self, self._loop)

    def free(self, connection: Connection) -> None:
        """The connection has served and can serve again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                connection.unwatch()
                waiter.set_result(connection)
                return
        self.idle.append(connection)
        connection.watch(self.idle_s)

    def lost(self, connection: Connection) -> None:
        """The connection is of no more use; called once for each."""
        if connection in self.idle:
            self.idle.remove(connection)
        if connection in self._sockets:
            self._leave()

    def closed(self, connection: Connection) -> None:
        self._sockets.discard(connection)
        if self._emptied is not None and not self._sockets and not self._emptied.done():
            self._emptied.set_result(None)

    def _leave(self) -> None:
        """A slot falls free."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.open -= 1

    def shut(self) -> None:
        """Cut all connections and send away who waits."""
        self._shut = True
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(HttpUnreachable("the client was closed"))
        for connection in list(self._sockets):
            connection.quit(HttpBroken("the client was closed", begun=True))

    async def close(self) -> None:
        self.shut()
        if self._sockets:
            self._emptied = self._loop.create_future()
            await self._emptied
