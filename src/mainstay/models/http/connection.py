"""One socket and its parser: a request out, an answer in, again and again (RFC 9112)."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

import httptools

from mainstay.models.http.response import Headers, PooledResponse, RawHeaders
from mainstay.models.http.types import HttpBroken, HttpError

JOINED_BYTES_MAX: Final = 64 << 10
"""A body up to this size is joined with its head for one write; a larger one is sent in pieces of this size."""
_EARLY_S: Final = 0.002
"""Timers may fire this much early, as loops round their clocks."""
_TOO_LARGE: Final = "the head of the answer is too large"
_CLOSED_EARLY: Final = "the connection was closed before the answer"
_IDLE, _HEAD, _BODY, _DONE = range(4)


class Owner(Protocol):
    """The pool, as a connection sees it."""

    buffer_bytes: int
    headers_max_bytes: int
    idle_s: float

    def free(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class StaleConnection(HttpBroken):
    """A connection used before was closed by the server before it answered: the request may be sent again."""

    def __init__(self) -> None:
        super().__init__(_CLOSED_EARLY, begun=False)


class _Refused(Exception):
    """Raised inside the parser's callbacks: this is no answer to what we asked."""


class Connection(asyncio.Protocol):
    """Phases: idle, head (request sent, no head yet), body, done (within one `data_received` only).

    One timer a connection serves all waits: it is set again only when a deadline comes earlier, and looks at
    the present deadline when it fires. So a request or a chunk costs no timer.
    """

    __slots__ = (
        "_barren", "_begun", "_deadline", "_head_only", "_interim", "_keep", "_limit_s", "_parser",
        "_phase", "_raw", "_response", "_sent", "_timer", "_timer_at", "_transport", "_unsent", "_upload", "_writable",
        "gone", "loop", "owner", "paused", "served",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.loop = loop
        self.gone = False  # closed, or about to be
        self.served = 0
        self.paused = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: PooledResponse | None = None
        self._raw: RawHeaders = []
        self._phase = _IDLE
        self._begun = self._interim = self._keep = self._head_only = False
        self._barren = 0  # bytes that brought us no further: head lines, chunk sizes, trailers
        self._upload: memoryview | None = None
        self._sent = 0
        self._unsent = False  # part of a body will never be sent
        self._writable = True
        self._deadline: float | None = None
        self._limit_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- a request ---------------------------------------------------------------------------------------------

    async def exchange(
        self, head: bytes, body: bytes, head_only: bool, timeout_s: float | None
    ) -> PooledResponse:
        """Send and wait for the head. `head_only`: the answer has no body (HEAD). Raises HttpError."""
        transport = self._transport
        if self.gone or transport is None:
            raise StaleConnection if self.served else HttpBroken(_CLOSED_EARLY, begun=False)
        response = self._response = PooledResponse(self)
        self._raw = response.raw
        self._phase, self._barren, self._head_only = _HEAD, 0, head_only
        self._begun = self._interim = self._unsent = False
        if len(body) <= JOINED_BYTES_MAX:
            transport.write(head + body if body else head)
        else:
            self._upload, self._sent = memoryview(body), 0
            transport.write(head)
            self._pump()
        while response.status == 0:
            await response.wait(timeout_s)
        _refuse_compressed(response)
        return response

    def _pump(self) -> None:
        """Send more of a large body, as far as the socket takes it."""
        while self._upload is not None and self._writable and self._transport is not None:
            piece = self._upload[self._sent : self._sent + JOINED_BYTES_MAX]
            self._sent += len(piece)
            if self._sent >= len(self._upload):
                self._upload = None
            self._transport.write(piece)

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None or self.gone:  # nobody asked, or nobody waits any more
            self.abort()
            return
        self._begun = True
        self._barren += len(data)
        before = response.buffered
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(error)
            return
        if self._phase == _DONE:
            self._finish(response)
        elif response.buffered != before:
            self._barren = 0
            if response.buffered > self.owner.buffer_bytes and not self.paused:
                self._pause()
            response.wake()
        elif self._barren > self.owner.headers_max_bytes:
            self._break(_TOO_LARGE)
        elif self._phase == _BODY:
            response.wake()

    def eof_received(self) -> None:
        self.abort()  # connection_lost follows; until then nobody may take it from the pool

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone:
            self.gone = True
            self.owner.lost(self)
        self._transport = None
        self._upload = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response, self._response = self._response, None
        if response is not None and response.source is not None:
            self._lost_while(response, exc)
        del self._parser  # it points back to us
        self.owner.closed(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    # -- the parser's callbacks --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._phase == _DONE:
            raise _Refused("more than one answer came")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == _HEAD:  # what comes later are trailers
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        response = self._response
        if response is None or status == 101:
            raise _Refused("the server switched protocols")
        if status < 200:
            self._interim = True
            self._raw.clear()
            return
        if self._barren > self.owner.headers_max_bytes and _size(self._raw) > self.owner.headers_max_bytes:
            raise _Refused(_TOO_LARGE)
        response.status = status
        response.headers = Headers(self._raw)
        self._phase = _BODY
        if status >= 400:
            self._stop_upload()
        if self._head_only:
            self._complete()

    def on_body(self, body: bytes) -> None:
        response = self._response
        if self._phase != _BODY or response is None:
            raise _Refused("a body came where there is none")
        response.pieces.append(body)
        response.buffered += len(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif self._phase == _BODY:
            self._complete()

    def _complete(self) -> None:
        self._phase = _DONE
        self._keep = self._parser.should_keep_alive()

    # -- how an answer ends ------------------------------------------------------------------------------------

    def _finish(self, response: PooledResponse) -> None:
        """The answer is whole: the connection is free before its reader has read all."""
        self._response = None
        self._phase = _IDLE
        self._deadline = None
        self.served += 1
        reusable = self._keep and not self._unsent and self._upload is None
        response.end()
        if not reusable:
            self.abort()
            return
        if self.paused:
            self.resume()
        if self._head_only:  # the parser still waits for the body that the head announced
            self._parser = httptools.HttpResponseParser(self)
        self.owner.free(self)

    def _lost_while(self, response: PooledResponse, exc: Exception | None) -> None:
        if self._phase == _HEAD and not self._begun and self.served:
            response.fail(StaleConnection())
        elif self._phase == _BODY and exc is None and _until_close(self._raw):
            response.end()
        else:
            what = "before the answer" if not self._begun else "in the middle of the answer"
            how = "reset" if isinstance(exc, ConnectionError) else "closed"
            response.fail(HttpBroken(f"the connection was {how} {what}", begun=self._begun))

    def _malformed(self, error: Exception) -> None:
        """No valid HTTP, unless the answer was whole: what follows it then only costs the connection."""
        if self._phase == _DONE and self._response is not None:
            self._keep = False
            self._finish(self._response)
            return
        cause = error.__context__
        why = str(cause) if isinstance(cause, _Refused) else f"the answer is no valid HTTP ({error})"
        self._break(why)

    def _break(self, why: str) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.fail(HttpBroken(why, begun=True))
        self.abort()

    def _stop_upload(self) -> None:
        """An early error: the rest of the body is not sent, so the connection is of no further use."""
        if self._upload is not None:
            self._upload = None
            self._unsent = True

    # -- what an answer's reader calls -------------------------------------------------------------------------

    def abort(self) -> None:
        """Out of the pool and closed, now."""
        if not self.gone:
            self.gone = True
            self.owner.lost(self)
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        self.paused = True
        if self._transport is not None and not self.gone:
            self._transport.pause_reading()

    def resume(self) -> None:
        self.paused = False
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()

    def unwatch(self) -> None:
        self._deadline = None

    def watch(self, timeout_s: float) -> None:
        deadline = self._deadline = self.loop.time() + timeout_s
        self._limit_s = timeout_s
        if self._timer is None or self._timer_at > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self.loop.call_later(timeout_s, self._look), deadline

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None or self.gone:
            return
        left_s = self._deadline - self.loop.time()
        if left_s > _EARLY_S:
            self._timer, self._timer_at = self.loop.call_later(left_s, self._look), self._deadline
            return
        response = self._response
        if response is None:  # idle for long enough
            self.abort()
        elif response.awaited:
            self._response = None
            response.expire(self._limit_s)
            self.abort()

    def quit(self, error: HttpError) -> None:
        """The client is being closed."""
        response, self._response = self._response, None
        if response is not None:
            response.fail(error)
        self.abort()


def _size(raw: RawHeaders) -> int:
    return sum(len(name) + len(value) + 4 for name, value in raw)


def _until_close(raw: RawHeaders) -> bool:
    """Whether only the end of the connection ends the body (RFC 9112, section 6.3)."""
    return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in raw)


def _refuse_compressed(response: PooledResponse) -> None:
    for name, value in response.raw:
        if (
            len(name) == 16
            and name.lower() == b"content-encoding"
            and value.lower() not in (b"", b"identity")
        ):
            response.close()
            raise HttpBroken("the answer is compressed although we asked for plain", begun=True)
