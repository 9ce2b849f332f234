"""The HTTP server of a Mainstay process, and how it ends: gracefully, within `drain_s`, and saying so.

1. Told to end (SIGTERM, Ctrl-C, `end`): `/readyz` says `draining` and new requests get 503 with Retry-After, while
   the port stays open, so that load balancers see it. Idle connections are closed; others after their answer.
2. Requests under way finish. After `drain_s`, or when told to end once more, what is left gets an error (streams as
   their last event), and its holds are settled.
3. The port is closed and the process may end.

uvicorn's own shutdown closes the port first, cancels what is late without a word to its client, and at the end raises
the signal again, which would kill the process before traces are written: hence this one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import cast

import uvicorn
from uvicorn._types import ASGIApplication

from mainstay.app import AsgiApp
from mainstay.cli.http_protocol import HttpProtocol
from mainstay.cli.uvicorn_log import quiet_dropped_streams
from mainstay.core.config import Settings
from mainstay.serving import Shutdown

log = logging.getLogger(__name__)

BACKLOG = 2048
TOLD_S = 3.0
"""How long clients have to take the error that ends their request, and pages to finish theirs."""
_LOOK_S = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DrainingServer(uvicorn.Server):
    """`on_started` is called once requests are taken."""

    def __init__(
        self,
        config: uvicorn.Config,
        shutdown: Shutdown,
        drain_s: float,
        on_started: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._gateway = shutdown
        self._drain_s = drain_s
        self._on_started = on_started
        self._hurry = False

    def end(self) -> None:
        """Begin to end. From any thread, any number of times."""
        self._gateway.begin()
        self.should_exit = True

    def cut(self) -> None:
        """Do not wait for what is under way."""
        self.end()
        self._hurry = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal ends the server; a second one does not wait."""
        if self.should_exit:
            self.cut()
        self.end()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.begin()  # the server may end for a reason of its own
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until(lambda: self._hurry or not self._gateway.under_way, self._drain_s)
        if self._gateway.under_way:
            log.warning("%d requests are cut off, as the server ends", self._gateway.under_way)
            self._gateway.cut()
            await self._until(lambda: not self._gateway.under_way, TOLD_S)
        self.config.timeout_graceful_shutdown = 1 if self._hurry else int(TOLD_S)
        await super().shutdown(sockets)

    async def _until(self, done: Callable[[], bool], within_s: float) -> None:
        ends_s = time.monotonic() + within_s
        while not done() and time.monotonic() < ends_s:  # noqa: ASYNC110 - signals and threads change it
            await asyncio.sleep(_LOOK_S)


class BesideServer(uvicorn.Server):
    """A second server in another's event loop, which minds the signals for both."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_config(
    app: AsgiApp, settings: Settings, *, lifespan: bool = True, pages: bool = True
) -> uvicorn.Config:
    """The same HTTP for every role. A client that sends nothing holds a connection, and no more, for 5 s after its
    last answer. Only `pages` need to know what a proxy says of the client."""
    quiet_dropped_streams()
    return uvicorn.Config(
        cast(ASGIApplication, app),  # uvicorn has a type of its own for each message
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        ws="none",
        lifespan="on" if lifespan else "off",
        proxy_headers=pages,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
    )
