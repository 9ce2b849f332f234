"""Parsing in a process of its own: a hostile or broken file can cost its time and memory limit, nothing else.

The child is a fresh interpreter with few environment variables (no secrets), a memory limit, and one
socket to us. It answers in MessagePack, never in pickle, as what it parsed may have taken it over.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import msgspec

from mainstay.core.errors import Unavailable
from mainstay.knowledge.parsers.base import ParseError, Parser, registry
from mainstay.knowledge.types import ParsedText

START_TIME_S = 60.0
TEXT_CHARS_MAX = 64 * 1024 * 1024
"""A few bytes can stand for a lot of text: repeated column names, a compressed archive."""
_REPLY_BYTES_MAX = 8 * TEXT_CHARS_MAX
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
)
# One document at a time needs few threads, and each thread's heap counts against the limit on address space.
_CHILD_VARIABLES = {
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKIO_WORKER_THREADS": "2",
    "MALLOC_ARENA_MAX": "2",
}
_READY = b"ready"


class _Job(msgspec.Struct):
    parser: str
    uri: str
    data: bytes


class _Failure(msgspec.Struct):
    reason: str
    fix: str | None = None


class _Reply(msgspec.Struct):
    parsed: ParsedText | None = None
    failure: _Failure | None = None


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Per document: wall seconds until the worker is killed, and MiB of address space it may use."""

    time_s: float = 60.0
    memory_mib: int = 3072


class ParseWorker:
    """Runs parsers one document at a time in a child that is started when needed and replaced when it dies.

    Use as a context manager. Not thread-safe.
    """

    def __init__(self, limits: WorkerLimits | None = None) -> None:
        self._limits = limits or WorkerLimits()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def parse(self, parser: Parser, data: bytes, uri: str) -> ParsedText:
        """Raises ParseError when the document is unreadable, takes too long or needs too much memory."""
        connection = self._connected()
        try:
            connection.send_bytes(msgspec.msgpack.encode(_Job(parser.name, uri, data)))
            in_time = connection.poll(self._limits.time_s)
            reply = _reply(connection.recv_bytes(_REPLY_BYTES_MAX)) if in_time else None
        except (EOFError, OSError, msgspec.MsgspecError) as error:
            self._stop()
            raise ParseError(
                "Reading it ended the parser's process, mostly for lack of memory.",
                fix="Split the document, or save it again in a simpler form.",
            ) from error
        if reply is None:
            self._stop()
            raise ParseError(
                f"Reading it took longer than {self._limits.time_s:g} seconds.",
                fix="Split the document, or save it again in a simpler form.",
            )
        if reply.parsed is None:
            failure = reply.failure or _Failure("The parser gave no answer.")
            raise ParseError(failure.reason, fix=failure.fix)
        return reply.parsed

    def _connected(self) -> Connection:
        if self._connection is None:
            self._start()
        assert self._connection is not None, "started just now"
        return self._connection

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    sys.executable, "-P", "-m", "mainstay.knowledge.parsers.worker_child",
                    str(theirs.fileno()), str(self._limits.memory_mib), str(self._limits.time_s),
                ],
                pass_fds=[theirs.fileno()],
                env=environment | _CHILD_VARIABLES,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._connection = Connection(ours.detach())
        if not self._is_ready(self._connection):
            self._stop()
            raise Unavailable(
                "The process that parses documents did not start.",
                fix="Check memory, and that this Python can import mainstay.",
            )

    @staticmethod
    def _is_ready(connection: Connection) -> bool:
        try:
            return connection.poll(START_TIME_S) and connection.recv_bytes(64) == _READY
        except (EOFError, OSError):
            return False

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def serve(connection: Connection, time_s: float) -> None:
    """The child's loop: one reply a job until the other side hangs up.

    The alarm ends a child whose parent was killed before it could end the child.
    """
    connection.send_bytes(_READY)
    with suppress(EOFError):
        while True:
            job = msgspec.msgpack.decode(connection.recv_bytes(), type=_Job)
            signal.alarm(int(time_s) + 5)
            reply = _answer(job)
            signal.alarm(0)
            connection.send_bytes(msgspec.msgpack.encode(reply))


def _answer(job: _Job) -> _Reply:
    try:
        return _Reply(parsed=parse_here(registry.get(job.parser), job.data, job.uri))
    except ParseError as error:
        return _Reply(failure=_Failure(error.message, error.fix))


def _reply(message: bytes) -> _Reply:
    return msgspec.msgpack.decode(message, type=_Reply)


def parse_here(parser: Parser, data: bytes, uri: str) -> ParsedText:
    """Parse in this process. Raises ParseError whatever goes wrong, and for more text than `TEXT_CHARS_MAX`."""
    try:
        parsed = parser.parse(data, uri)
    except ParseError:
        raise
    except MemoryError as error:
        raise ParseError("Reading it needs too much memory.", fix="Split the document.") from error
    except Exception as error:  # the boundary to foreign parsers; the report shows it
        shown = str(error)[:200].encode("utf-8", "backslashreplace").decode("utf-8")
        reason = f"The parser {parser.name} failed: {type(error).__name__}: {shown}"
        raise ParseError(reason, fix="Save the document again, or in another format.") from error
    if len(parsed.text) > TEXT_CHARS_MAX:
        reason = f"It holds {len(parsed.text):,} characters of text; the limit is {TEXT_CHARS_MAX:,}."
        raise ParseError(reason, fix="Split the document.")
    return parsed
