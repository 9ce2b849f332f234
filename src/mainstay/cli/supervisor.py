"""Keeps several gateway processes up on one port.

The rule of restarts, so that nothing loops for ever:

- When a process ends before all have been up once, the reason is in its own lines above: all are ended, exit 1.
- Later, one that ends is started again at once; if it lives for less than a minute, the next start waits 0.5 s, then
  1 s, 2 s, … up to 30 s. While another process serves, this goes on.
- When no process serves and one has failed five times in a row, all are ended, exit 1: the service manager takes over.

Between the two is a socket pair, the line. The process writes UP on it when it takes requests; the supervisor writes
END and CUT. When the supervisor dies, the line breaks, and the process ends as if it had been told to.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mainstay.core.errors import Unavailable

log = logging.getLogger(__name__)

UP, END, CUT = b"u", b"e", b"c"

STEADY_S = 60.0
"""A process that lived this long was well: its next end is a new story."""
FIRST_WAIT_S = 0.5
WAIT_S_MAX = 30.0
FAILURES_MAX = 5
GRACE_S = 10.0
"""Beyond drain_s, until what does not end is killed."""
_LOOK_S = 0.05

StartWorker = Callable[[int, socket.socket], "subprocess.Popen[bytes]"]
"""Starts the process of this number with its end of the line."""


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    up: bool = False
    started_at_s: float = 0.0
    start_again_at_s: float = 0.0
    failures: int = 0


class Supervisor:
    """`run` in the main thread: it answers SIGTERM and SIGINT. A second signal does not wait for what is under way."""

    def __init__(self, start: StartWorker, workers: int, drain_s: float) -> None:
        self._start_process = start
        self._workers = [_Worker(number) for number in range(workers)]
        self._drain_s = drain_s
        self._signals = 0
        self._were_all_up = False

    def run(self, on_up: Callable[[], None] = lambda: None) -> None:
        """Until told to end. `on_up` is called once all take requests. Raises Unavailable when it gives up."""
        before = {number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._signals:
                self._look()
                if not self._were_all_up and all(worker.up for worker in self._workers):
                    self._were_all_up = True
                    on_up()
                time.sleep(_LOOK_S)
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told(self, _signal: int, _frame: object) -> None:
        self._signals += 1

    def _look(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            self._hear(worker)
            if worker.process is not None and worker.process.poll() is not None:
                self._ended(worker, now_s)
            if worker.process is None and now_s >= worker.start_again_at_s:
                self._start(worker, now_s)

    def _start(self, worker: _Worker, now_s: float) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            worker.process = self._start_process(worker.number, theirs)
        worker.line, worker.up, worker.started_at_s = ours, False, now_s

    def _hear(self, worker: _Worker) -> None:
        if worker.line is not None and not worker.up:
            with suppress(OSError):  # nothing said yet, or the process has gone
                worker.up = worker.line.recv(16).startswith(UP)

    def _ended(self, worker: _Worker, now_s: float) -> None:
        process = worker.process
        assert process is not None
        lived_s = now_s - worker.started_at_s
        self._forget(worker)
        if not self._were_all_up:
            raise Unavailable(
                f"Gateway process {worker.number} could not start ({_how(process.returncode)}).",
                fix="Its own lines above say why.",
            )
        worker.failures = 1 if lived_s >= STEADY_S else worker.failures + 1
        if worker.failures >= FAILURES_MAX and not any(other.up for other in self._workers):
            raise Unavailable(
                f"No gateway process serves, and one ended {worker.failures} times in a row"
                f" ({_how(process.returncode)}).",
                fix="Its own lines above say why.",
            )
        wait_s = 0.0
        if worker.failures > 1:
            wait_s = min(WAIT_S_MAX, FIRST_WAIT_S * 2 ** (worker.failures - 2))
        worker.start_again_at_s = now_s + wait_s
        log.error(
            "gateway process %d (pid %d) %s after %.0f s; it is started again in %.1f s",
            worker.number, process.pid, _how(process.returncode), lived_s, wait_s,
        )  # fmt: skip

    def _forget(self, worker: _Worker) -> None:
        if worker.line is not None:
            worker.line.close()
        worker.process, worker.line, worker.up = None, None, False

    def _end_all(self) -> None:
        self._say(END)
        kill_at_s = time.monotonic() + self._drain_s + GRACE_S
        hurried = False
        while self._running():
            if self._signals > 1 and not hurried:
                hurried = True
                self._say(CUT)
            if time.monotonic() > kill_at_s:
                for worker in self._running():
                    assert worker.process is not None
                    log.error("gateway process %d does not end; it is killed", worker.number)
                    worker.process.kill()
                    worker.process.wait()
            time.sleep(_LOOK_S)
        for worker in self._workers:
            self._forget(worker)

    def _running(self) -> list[_Worker]:
        return [w for w in self._workers if w.process is not None and w.process.poll() is None]

    def _say(self, word: bytes) -> None:
        for worker in self._workers:
            if worker.line is not None:
                with suppress(OSError):  # it has gone already
                    worker.line.send(word)


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit {returncode}"
