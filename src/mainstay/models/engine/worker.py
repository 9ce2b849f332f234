"""The engine's process: loads one model, answers the calls that come over the socket it was given.

    python -P …/mainstay/models/engine/boot.py --fd 7 --parent 4711 --model smollm2.gguf

It is started by `EngineProcess`, through `boot`, and by nothing else. Whatever befalls the engine here, a crash, the kernel's
out-of-memory killer, takes this process and not the gateway. It ends when the socket does, when its parent does,
and when it holds more memory than it may. The generations run in threads, as many as the engine has slots.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NoReturn

import msgspec
import orjson

from mainstay.models.engine.frames import (
    WINDOW,
    Counted,
    Credit,
    Failure,
    Frame,
    FrameReader,
    Kind,
    Load,
    frame,
    message,
)
from mainstay.models.engine.llama import Llama
from mainstay.models.engine.memory import resident_bytes

_WATCH_S: Final = 0.5
_LOG_BYTES_MAX: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
EXIT_MEMORY: Final = 78

log = logging.getLogger("mainstay.engine")


class _Call:
    def __init__(self) -> None:
        self.cancelled = False
        self.job: Future[None] | None = None
        self._room = threading.Semaphore(WINDOW)

    def wait_for_room(self) -> None:
        self._room.acquire()  # `cancel` makes room, so this ends

    def grant(self, chunks: int) -> None:
        self._room.release(chunks)

    def cancel(self) -> None:
        self.cancelled = True
        self._room.release(WINDOW * 4)
        if self.job is not None:
            self.job.cancel()


class Worker:
    """Reads frames in the main thread; every other thread writes under one lock."""

    def __init__(self, connection: socket.socket, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._write_lock = threading.Lock()
        self._llama: Llama | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._counting = ThreadPoolExecutor(1, thread_name_prefix="count")
        self._calls: dict[int, _Call] = {}
        self._memory_bytes_max: int | None = None

    def run(self) -> NoReturn:
        reader = FrameReader()
        readable = select.poll()
        readable.register(self._connection, select.POLLIN)
        watched_at = time.monotonic()
        while True:
            if readable.poll(_WATCH_S * 1000):
                data = self._connection.recv(1 << 18)
                if not data:
                    os._exit(0)  # nobody is there to hear from us
                for one in reader.feed(data):
                    self._handle(one)
            if time.monotonic() - watched_at >= _WATCH_S:
                watched_at = time.monotonic()
                self._watch()

    def _handle(self, one: Frame) -> None:
        match one.kind:
            case Kind.LOAD:
                self._load(msgspec.json.decode(one.payload, type=Load))
            case Kind.CHAT:
                self._submit(one.call, one.payload)
            case Kind.CANCEL:
                if (call := self._calls.get(one.call)) is not None:
                    call.cancel()
            case Kind.CREDIT:
                if (call := self._calls.get(one.call)) is not None:
                    call.grant(msgspec.json.decode(one.payload, type=Credit).chunks)
            case Kind.COUNT:
                self._counting.submit(self._guarded, one.call, lambda: self._count(one.call, one.payload))
            case Kind.PING:
                self._send(frame(Kind.PONG, one.call))
            case Kind.UNLOAD:
                threading.Thread(target=self._unload).start()

    def _load(self, load: Load) -> None:
        """In the main thread: the engine holds the interpreter's lock while it loads, wherever it is called."""
        self._memory_bytes_max = load.memory_bytes_max
        try:
            self._llama = Llama(load)
        except Exception as error:  # the process's boundary: whatever it is, the gateway hears of it
            self._send(message(Kind.FAILED, Failure("load", str(error))))
            return
        self._threads = ThreadPoolExecutor(load.slots, thread_name_prefix="llamacpp")
        self._send(frame(Kind.READY))

    def _submit(self, number: int, body: bytes) -> None:
        call = self._calls[number] = _Call()
        if self._threads is None:
            self._end(number, Failure("closing", "No model is loaded."))
            return
        try:
            call.job = self._threads.submit(self._guarded, number, lambda: self._generate(number, call, body))
        except RuntimeError:  # the pool is shut down
            self._end(number, Failure("closing", "The local engine is shutting down."))
            return
        call.job.add_done_callback(lambda done: self._tell_if_dropped(number, done))

    def _tell_if_dropped(self, number: int, job: Future[None]) -> None:
        if job.cancelled():
            self._end(number, Failure("closing", "The local engine is shutting down."))

    def _guarded(self, number: int, work: Callable[[], None]) -> None:
        """A thread's outermost frame: what goes wrong is told to the gateway as the end of the call."""
        try:
            work()
        except ValueError as error:
            self._end(number, Failure("request", str(error)))
        except Exception as error:
            log.exception("a call failed")
            self._end(number, Failure("engine", str(error)))

    def _generate(self, number: int, call: _Call, body: bytes) -> None:
        assert self._llama is not None
        if not call.cancelled:
            self._llama.chat(body, lambda event: self._take(number, call, event))
        self._end(number, None)

    def _take(self, number: int, call: _Call, event: dict[str, Any]) -> bool:
        """The engine's callback for each event; True stops the generation."""
        if call.cancelled or "prompt_progress" in event:
            return call.cancelled
        call.wait_for_room()
        if not call.cancelled:
            self._send(frame(Kind.CHUNK, number, orjson.dumps(event)))
        return call.cancelled

    def _count(self, number: int, body: bytes) -> None:
        assert self._llama is not None
        self._send(message(Kind.COUNTED, Counted(self._llama.count(body)), number))

    def _end(self, number: int, failure: Failure | None) -> None:
        self._calls.pop(number, None)
        ended = frame(Kind.DONE, number) if failure is None else message(Kind.FAILED, failure, number)
        self._send(ended)

    def _unload(self) -> None:
        """Generations go to their end, calls that wait are told; the gateway kills us if that takes too long."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        os._exit(0)

    def _send(self, data: bytes) -> None:
        try:
            with self._write_lock:
                self._connection.sendall(data)
        except OSError:
            os._exit(0)  # nobody is there to hear from us

    def _watch(self) -> None:
        if os.getppid() != self._parent:
            os._exit(0)
        held = resident_bytes(os.getpid())
        limit = self._memory_bytes_max
        if limit is not None and held is not None and held > limit:
            said = f"It held {held >> 20} MB, more than the {limit >> 20} MB it may."
            self._send(message(Kind.FAILED, Failure("memory", said)))
            os._exit(EXIT_MEMORY)


def _die_with(parent: int) -> None:
    """Have the kernel kill us when our parent ends (Linux): loading a model holds up all else we could do."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def main() -> NoReturn:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--fd", type=int, required=True)
    arguments.add_argument("--parent", type=int, required=True)
    arguments.add_argument("--model", required=True)  # for people who look at the list of processes
    given = arguments.parse_args()
    _die_with(given.parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # the gateway drains its streams first, then tells us
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LOG_BYTES_MAX, _LOG_BYTES_MAX))  # what the engine logs is all
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    Worker(socket.socket(fileno=given.fd), given.parent).run()
