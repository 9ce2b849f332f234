"""One answer: filled by its connection, emptied by its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Protocol

from mainstay.models.http.types import HttpBroken, HttpError, HttpTimeout

RawHeaders = list[tuple[bytes, bytes]]


class Headers(Mapping[str, str]):
    """Names in lower case, of a repeated one the last. Decoded at the first look, as most are never looked at."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            self._decoded = {
                name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in self._raw
            }
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class Source(Protocol):
    """What an answer needs of the connection it comes from."""

    loop: asyncio.AbstractEventLoop
    paused: bool

    def watch(self, timeout_s: float) -> None: ...

    def unwatch(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class PooledResponse:
    """See HttpResponse. `source` is None once the connection has no more to do with this answer.

    The connection appends to `pieces` and counts `buffered`, then wakes the reader. Exactly one of `ended`
    and `error` is set at last; what was buffered before is still given out.
    """

    __slots__ = ("_waiter", "buffered", "ended", "error", "headers", "pieces", "raw", "source", "status")

    def __init__(self, source: Source) -> None:
        self.source: Source | None = source
        self.status = 0
        self.raw: RawHeaders = []
        self.headers: Mapping[str, str] = {}
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.ended = False
        self.error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def awaited(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    async def next_chunk(self, timeout_s: float | None = None) -> bytes:
        """All that has come, as one piece; waits only when nothing has."""
        while not self.pieces:
            if self.ended:
                return b""
            await self.wait(timeout_s)
        return self._take()

    async def read(self, limit_bytes: int, timeout_s: float | None = None) -> bytes:
        """The whole body. A connection that waits for the rest is cut when time or limit is over."""
        if self.ended and len(self.pieces) == 1 and self.buffered <= limit_bytes:
            return self._take()  # all of a short answer came with its head
        taken: list[bytes] = []
        size = 0
        until_s = None if timeout_s is None or self.source is None else self.source.loop.time() + timeout_s
        while not self.ended or self.pieces:
            if self.pieces:
                taken.append(self._take())
                size += len(taken[-1])
                if size > limit_bytes:
                    self._cut(HttpBroken(f"the answer exceeds {limit_bytes} bytes", begun=True))
                    raise HttpBroken(f"the answer exceeds {limit_bytes} bytes", begun=True)
                continue
            left_s = None
            if until_s is not None and self.source is not None:
                left_s = max(until_s - self.source.loop.time(), 0.0)
            await self.wait(left_s)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def close(self) -> None:
        """Cut the connection unless the body has come to its end; what was not read is dropped."""
        if self.source is not None:
            self._cut(HttpBroken("the answer was closed before its end", begun=True))
        self.pieces.clear()

    async def wait(self, timeout_s: float | None) -> None:
        """Until the connection has news. Raises its error; cancelled, it cuts the connection."""
        source = self.source
        if self.error is not None:
            raise self.error
        if source is None:
            return
        waiter = self._waiter = source.loop.create_future()
        if timeout_s is None:
            source.unwatch()
        else:
            source.watch(timeout_s)
        try:
            await waiter
        except asyncio.CancelledError:
            self._cut(HttpBroken("the caller went away", begun=self.status != 0))
            raise
        finally:
            self._waiter = None
        if self.error is not None and not self.pieces:
            raise self.error

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self) -> None:
        """The body is whole; the connection may already serve another."""
        self.source = None
        self.ended = True
        self.wake()

    def fail(self, error: HttpError) -> None:
        """The connection is gone, or about to go."""
        self.source = None
        self.error = error
        self.wake()

    def expire(self, limit_s: float) -> None:
        what = "fell silent for" if self.status else "did not begin within"
        self.fail(HttpTimeout(f"the answer {what} {limit_s:g} s"))

    def _cut(self, error: HttpBroken) -> None:
        source = self.source
        if source is not None:
            self.fail(error)
            source.abort()

    def _take(self) -> bytes:
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        source = self.source
        if source is not None and source.paused:
            source.resume()
        return data
