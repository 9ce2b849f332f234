"""uvicorn's HTTP/1.1 (httptools), with what costs most a request written anew:

- the head of an answer is checked as a whole, not header by header with two regular expressions;
- it goes out with the first of the body, and the pieces of a stream that come in one turn of the event loop go out
  together: a write costs more than all else here;
- an idle connection's timer is not made and cancelled for each answer.

The bytes on the wire are uvicorn's own (RFC 9112).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

_BODILESS = (204, 304)
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t"))
_FRAMING = frozenset({b"content-length: ", b"transfer-encoding: ", b"connection: "})
_NAMES_KEPT = 1024


class _LineStarts(dict[bytes, bytes]):
    """How the line of a header begins, by its name; raises RuntimeError for what is no name."""

    def __missing__(self, name: bytes) -> bytes:
        if HEADER_RE.search(name):
            raise RuntimeError("Invalid HTTP header name.")
        if len(self) >= _NAMES_KEPT:
            self.clear()
        start = self[name] = name.lower() + b": "
        return start


_line_starts = _LineStarts()


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _idle_since_s: float | None = None

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope = cast(dict[str, Any], self.scope)
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        earlier = self.cycle
        self.cycle = Reply(
            self.loop,
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # pipelined: it waits for those before it, and no more is read
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        self._idle_since_s = None
        super().data_received(data)

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn asks this whenever data comes; the timer is left to run, and finds that the connection is in use."""
        if self.transport.is_closing():
            super()._unset_keepalive_if_required()

    def _look_after(self, delay_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(delay_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """One timer a connection that looks how long it has been idle, instead of one for each answer."""
        self.timeout_keep_alive_task = None
        if self._idle_since_s is None:
            return
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_after(left_s)
        else:
            super().timeout_keep_alive_handler()


class Reply(RequestResponseCycle):
    """One request's answer. Its head waits for the first of its body, as ASGI wants it."""

    _head = b""
    _waiting_bytes = 0
    _wrote_at_s = 0.0

    def __init__(self, loop: asyncio.AbstractEventLoop, **parts: Any) -> None:
        super().__init__(**parts)
        self._loop = loop
        self._waiting: list[bytes] = []

    async def run_asgi(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=error)  # noqa: TRY400 - as uvicorn logs it
            await self._break_off()
        else:
            if not (self.response_complete or self.disconnected):
                done = "completing" if self.response_started else "starting"
                self.logger.error(f"ASGI callable returned without {done} response.")
                await self._break_off()
        finally:
            self.on_response = _nothing

    async def _break_off(self) -> None:
        """What was said goes out before the connection is closed: the event that tells of the error, for one."""
        self._flush()
        if self.response_started:
            self.transport.close()
        else:
            await self.send_500_response()

    async def send(self, message: Any) -> None:  # uvicorn's type is of ten messages, of which two come here
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self._write_head(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"The ASGI message {kind!r} came out of turn.")

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = []
        closes = False
        for name, value in (*self.default_headers, *headers):
            start = _line_starts[name]
            lines.append(start + value)
            if start in _FRAMING:
                closes = self._frame(start, value) or closes
        if not self.keep_alive and not closes:
            lines.append(b"connection: close")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(
            lines
        ):  # more than the lines' own ends
            raise RuntimeError("Invalid HTTP header value.")
        self._head = STATUS_LINE[status] + head

    def _frame(self, start: bytes, value: bytes) -> bool:
        """Note how the body is delimited; the result is whether this header says that the connection closes."""
        if start == b"content-length: " and self.chunked_encoding is None:
            self.chunked_encoding = False
            self.expected_content_length = int(value)
        elif start == b"transfer-encoding: " and value.lower() == b"chunked":
            self.chunked_encoding = True
            self.expected_content_length = 0
        elif start == b"connection: " and b"close" in [token.strip() for token in value.lower().split(b",")]:
            self.keep_alive = False
            return True
        return False

    def _write_body(self, body: bytes, more_body: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            self.transport.write(head)
        elif self.chunked_encoding:
            chunk = b"%b%x\r\n%b\r\n" % (head, len(body), body) if body else head
            self._write_chunk(chunk if more_body else chunk + b"0\r\n\r\n", more_body)
        elif len(body) > self.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        else:
            self.expected_content_length -= len(body)
            self.transport.write(head + body)
        if not more_body:
            self._complete()

    def _write_chunk(self, chunk: bytes, more_body: bool) -> None:
        """What comes first goes out at once; what comes in the same turn of the loop, by its clock, is joined.

        uvloop's clock moves by whole milliseconds between turns: pieces that come slowly never wait.
        """
        now_s = self._loop.time()
        if not self._waiting and (now_s != self._wrote_at_s or not more_body):
            self._wrote_at_s = now_s
            self.transport.write(chunk)
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if not more_body or self._waiting_bytes > HIGH_WATER_LIMIT:
            self._flush()

    def _flush(self) -> None:
        if self._waiting and not self.disconnected:
            self.transport.write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _nothing() -> None: ...
