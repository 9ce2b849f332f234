"""How a gateway ends: new requests are refused, those under way may finish, what is left is cut off and told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from mainstay.serving.errors import ShuttingDown


class Shutdown:
    """One gateway's requests, and whether it is ending. Use it on one event loop; `begin` from anywhere."""

    def __init__(self) -> None:
        self.begun = False
        self.streams = 0
        """Event streams open now."""
        self._under_way: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def begin(self) -> None:
        """From now on new requests are refused; those under way go on."""
        self.begun = True

    def cut(self) -> None:
        """End what is under way: whole answers become 503, streams get an error event; holds are settled."""
        self.begun = True
        for task in self._under_way - self._cut:
            self._cut.add(task)
            task.cancel()

    def request(self) -> _Request:
        """Around all of one request. Raises ShuttingDown when the end has begun, or comes meanwhile."""
        return _Request(self)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Around the part of a request after which a cut can still be told to its client."""
        self.streams += 1
        try:
            yield
        except asyncio.CancelledError:
            self._tell(asyncio.current_task())
            raise
        finally:
            self.streams -= 1

    def _tell(self, task: asyncio.Task[object] | None) -> None:
        """Raises ShuttingDown if it was us who cancelled, and nobody else besides."""
        if task is not None and task in self._cut and task.uncancel() == 0:
            self._cut.discard(task)
            self._under_way.discard(task)
            raise ShuttingDown from None


class _Request:
    """A context manager without a generator: it is entered once a request."""

    __slots__ = ("_shutdown", "_task")

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def __enter__(self) -> asyncio.Task[object]:
        """The task that was entered, which is the current one."""
        if self._shutdown.begun:
            raise ShuttingDown
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._shutdown._under_way.add(task)
        return task

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._shutdown._tell(self._task)
        self._shutdown._under_way.discard(self._task)
        self._shutdown._cut.discard(self._task)
