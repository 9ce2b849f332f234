"""The gateway's side of an engine's process: start it, talk to it, notice when it dies, bury it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from mainstay.models.engine.frames import (
    WINDOW,
    BrokenFrame,
    Credit,
    Failure,
    Frame,
    FrameReader,
    Kind,
    Load,
    frame,
    message,
)
from mainstay.models.errors import EngineFailed, ProviderBadRequest, ProviderError

PROVIDER: Final = "local"
PROGRAM: Final = Path(__file__).with_name("boot.py")
EXIT_MEMORY: Final = 78
"""As the worker exits when it holds more memory than it may."""

_CREDIT_STEP: Final = WINDOW // 4
_LOG_TAIL_BYTES: Final = 2000
_LOAD_S_MAX: Final = 600.0
_UNLOAD_GRACE_S: Final = 30.0
_KEPT_VARIABLES: Final = frozenset(
    {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "TZ",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
    }
)
_KEPT_PREFIXES: Final = ("LC_", "OMP_", "GGML_", "CUDA_")
_RETRY_FIX: Final = (
    "Ask again: it is started anew. If it keeps failing, check free memory (`mainstay doctor`)."
)


class Port:
    """One call's way to the process. `get` gives its frames; `close` cancels what is still under way."""

    def __init__(self, process: EngineProcess, number: int) -> None:
        self._process = process
        self._number = number
        self._frames: asyncio.Queue[Frame | ProviderError] = asyncio.Queue()  # bounded by the window
        self._taken = 0
        self.ended = False

    def put(self, item: Frame | ProviderError) -> None:
        self._frames.put_nowait(item)

    async def get(self) -> Frame:
        """The next frame; after DONE or COUNTED there is none. Raises EngineFailed, ProviderBadRequest."""
        item = await self._frames.get()
        if isinstance(item, ProviderError):
            self.ended = True
            raise item
        if item.kind == Kind.CHUNK:
            self._taken += 1
            if self._taken == _CREDIT_STEP:
                self._taken = 0
                self._process.send(message(Kind.CREDIT, Credit(_CREDIT_STEP), self._number))
            return item
        self.ended = True
        if item.kind == Kind.FAILED:
            raise _failed(msgspec.json.decode(item.payload, type=Failure))
        return item

    def close(self) -> None:
        self._process.forget(self._number)
        if not self.ended:
            self.ended = True
            self._process.send(frame(Kind.CANCEL, self._number))


class EngineProcess(asyncio.Protocol):
    """One process with one loaded model. Belongs to the event loop that started it.

    The process inherits a socket and nothing else: no other file, and of the environment only what an
    interpreter and the engine need, so no keys.
    """

    def __init__(self, load: Load, on_death: Callable[[EngineProcess], None]) -> None:
        self.load = load
        self.loop = asyncio.get_running_loop()
        self.ready = False
        self.death: EngineFailed | None = None
        self.closing = False
        self._on_death = on_death
        self._reader = FrameReader()
        self._ports: dict[int, Port] = {}
        self._numbers = 0
        self._transport: asyncio.WriteTransport | None = None
        self._last_words: Failure | None = None
        self._loaded: asyncio.Future[None] = self.loop.create_future()
        self._buried = asyncio.Event()
        self._burial: asyncio.Task[None] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is buried
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(cls, load: Load, on_death: Callable[[EngineProcess], None]) -> EngineProcess:
        """A process whose model is loaded. Raises EngineFailed, telling why; then nothing is left running."""
        self = cls(load, on_death)
        await self._spawn()
        try:
            self.send(message(Kind.LOAD, load))
            async with asyncio.timeout(_LOAD_S_MAX):
                await self._loaded
            self.ready = True
        except TimeoutError as error:
            await self.kill()
            raise _not_loaded(load, f"It took longer than {_LOAD_S_MAX:g} s.") from error
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self.kill()))
            raise
        return self

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self.ready and self._burial is None and not self.closing

    @property
    def calls(self) -> int:
        return len(self._ports)

    def open(self, kind: Kind, body: bytes) -> Port:
        """Begin a call. Raises EngineFailed when the process is gone, ProviderBadRequest for a body too long."""
        if self._burial is not None:
            raise self.death or _died("The local engine ended.")
        self._numbers = self._numbers % 0xFFFF_FFFF + 1
        port = self._ports[self._numbers] = Port(self, self._numbers)
        try:
            self.send(frame(kind, self._numbers, body))
        except BrokenFrame as error:
            self.forget(self._numbers)
            port.ended = True
            raise ProviderBadRequest(
                "messages: the request is too long for the engine.", provider=PROVIDER
            ) from error
        return port

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def forget(self, number: int) -> None:
        self._ports.pop(number, None)

    async def ping(self) -> None:
        """Returns when the process has answered. Raises EngineFailed when it is gone."""
        port = self.open(Kind.PING, b"")
        try:
            await port.get()
        finally:
            port.ended = True
            port.close()

    async def close(self) -> None:
        """Calls under way go to their end, waiting ones are told, the memory is given back. Never raises."""
        self.closing = True
        if self._burial is None:
            self.send(frame(Kind.UNLOAD))
            try:
                async with asyncio.timeout(_UNLOAD_GRACE_S):
                    await self._buried.wait()
            except TimeoutError:
                pass
        await self.kill()

    async def kill(self) -> None:
        self.closing = True
        if self._process is not None and self._burial is None:
            self._process.kill()
        if self._transport is not None:
            await self._buried.wait()

    def abandon(self) -> None:
        """Kill and reap at once: for a process whose event loop is gone, so that nothing can be awaited."""
        self.closing = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    # --- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        try:
            for one in self._reader.feed(data):
                self._take(one)
        except (BrokenFrame, msgspec.DecodeError):
            if self._process is not None:
                self._process.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self._burial = self.loop.create_task(self._bury())

    def _take(self, one: Frame) -> None:
        if one.call:
            port = self._ports.get(one.call)
            if port is not None:
                port.put(one)
        elif one.kind == Kind.READY:
            if not self._loaded.done():
                self._loaded.set_result(None)
        elif one.kind == Kind.FAILED:
            self._last_words = msgspec.json.decode(one.payload, type=Failure)
            if not self._loaded.done():
                self._loaded.set_exception(_not_loaded(self.load, self._tail()))

    # --- birth and death -------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", str(PROGRAM), "--fd", str(theirs.fileno())]
            command += ["--parent", str(os.getpid()), "--model", self.load.gguf]
            try:
                # From the loop's own thread: the kernel ends the process when the thread that made it ends.
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - some milliseconds; our own interpreter
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    pass_fds=(theirs.fileno(),),
                    env=_environment(os.environ),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self._log.close()
                raise EngineFailed(
                    f"The local engine's process could not be started: {error.strerror}.",
                    provider=PROVIDER,
                    fix="Check free memory and the limit of processes.",
                ) from error
        ours.setblocking(False)
        await self.loop.create_unix_connection(lambda: self, sock=ours)

    async def _bury(self) -> None:
        """The socket is closed, so the process is dead or has gone mad: end it for sure, and tell all who wait."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                await _wait_briefly(self._process)
                self._process.kill()
        code = await asyncio.to_thread(self._process.wait)
        self.death = _died(self._how(code))
        self._log.close()
        if not self._loaded.done():
            self._loaded.set_exception(self.death)
        self._loaded.exception()  # it may be that nobody waits any more
        for port in list(self._ports.values()):
            port.put(_died(self._how_closed(code)))
        self._ports.clear()
        self._buried.set()
        self._on_death(self)

    def _how_closed(self, code: int) -> str:
        return "The local engine is shutting down." if self.closing else self._how(code)

    def _how(self, code: int) -> str:
        what = f"The local engine of {self.load.name!r}"
        if self._last_words is not None and self._last_words.code == "memory":
            return f"{what} was ended. {self._last_words.message}"
        if code == -signal.SIGKILL:
            return f"{what} was killed, maybe as the machine was out of memory."
        if code < 0:
            return f"{what} crashed ({signal.Signals(-code).name})."
        return f"{what} ended with status {code}."

    def _tail(self) -> str:
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES)).decode(
            "utf-8", "replace"
        )


async def _wait_briefly(process: subprocess.Popen[bytes]) -> None:
    """A process closes its files a moment before it can be waited for; killing it then would hide its status."""
    for _ in range(20):
        if process.poll() is not None:
            return
        await asyncio.sleep(0.005)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in variables.items()
        if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    return {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1", **kept}


def _failed(failure: Failure) -> ProviderError:
    said = failure.message.strip().rstrip(".")[:300]
    if failure.code == "request":
        return ProviderBadRequest(f"The local engine does not accept this: {said}.", provider=PROVIDER)
    if failure.code == "closing":
        return EngineFailed("The local engine is shutting down.", provider=PROVIDER)
    return EngineFailed(f"The local engine failed: {said}.", provider=PROVIDER)


def _died(message: str) -> EngineFailed:
    return EngineFailed(message, provider=PROVIDER, fix=_RETRY_FIX)


def _not_loaded(load: Load, log: str) -> EngineFailed:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    why = f" It said: {lines[-1][:200]}" if lines else ""
    return EngineFailed(
        f"The local engine could not load {Path(load.gguf).name}.{why}",
        provider=PROVIDER,
        fix="Remove the model and add it again; check free memory (`mainstay doctor`).",
    )
