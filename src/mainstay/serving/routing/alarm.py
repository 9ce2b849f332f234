"""One timer for one request: ends whatever the request waits for, without a task or a context per delta."""

from __future__ import annotations

import asyncio
import math
from typing import Final

_KEPT_MAX: Final = 1024
_NEVER: Final = math.inf


class Alarm:
    """Cancels the task that is registered in `task` when the time comes, and knows that it did.

    Whoever waits sets `task` to its own task before the wait and to None after it: outside, the alarm only
    notes that it rang. `owns_cancellation` tells its own cancellation from one that came from outside, and takes
    it back (as `asyncio.timeout` does; `Task.uncancel`, Python 3.11).

    A timer that is due too early is left in place: it looks at `at_s` when it fires. So an alarm that serves one
    request after the other (`Alarms`) costs none of them a timer.
    """

    __slots__ = ("_cancelled", "_due_s", "_handle", "_outer", "at_s", "loop", "rang", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[object] | None = None
        self.rang = False
        self.at_s = _NEVER
        self._cancelled: asyncio.Task[object] | None = None
        self._outer = 0
        self._handle: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self, at_s: float, task: asyncio.Task[object] | None) -> None:
        """Ring then, for a new request."""
        self._outer = 0 if task is None else task.cancelling()
        self.task = task
        self.set(at_s)

    def set(self, at_s: float) -> None:
        """Ring then instead, also if it has rung."""
        if at_s == self.at_s and not self.rang:
            return
        if self._cancelled is not None:  # whoever was cancelled made another error of it
            self.owns_cancellation()
        self.rang, self.at_s = False, at_s
        if self._handle is None or self._due_s > at_s:
            self._arm(at_s)

    def close(self) -> None:
        """Never ring again, and leave no cancellation of ours with the task."""
        self.task, self.at_s = None, _NEVER
        if self._cancelled is not None:
            self.owns_cancellation()

    def drop_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def owns_cancellation(self) -> bool:
        """Was a CancelledError that was just caught only ours? Takes it back from the task either way."""
        task, self._cancelled = self._cancelled, None
        return task is not None and task.uncancel() <= self._outer

    def _arm(self, at_s: float) -> None:
        self.drop_timer()
        self._handle, self._due_s = self.loop.call_at(at_s, self._fire), at_s

    def _fire(self) -> None:
        self._handle = None
        if self.at_s == _NEVER:
            return
        if self._due_s < self.at_s:
            self._arm(self.at_s)
            return
        self.rang = True
        if self.task is not None:
            self._cancelled = self.task
            self.task.cancel()


class Alarms:
    """Alarms that wait for their next request. When no request is under way, their timers are dropped."""

    __slots__ = ("_idle", "_running")

    def __init__(self) -> None:
        self._idle: list[Alarm] = []
        self._running = 0

    def start(self, loop: asyncio.AbstractEventLoop, at_s: float, task: asyncio.Task[object] | None) -> Alarm:
        alarm = self._idle.pop() if self._idle else Alarm(loop)
        if alarm.loop is not loop:  # of a loop that is over, or of another thread's
            alarm = Alarm(loop)
        self._running += 1
        alarm.start(at_s, task)
        return alarm

    def end(self, alarm: Alarm) -> None:
        alarm.close()
        self._running -= 1
        if self._running and len(self._idle) < _KEPT_MAX:
            self._idle.append(alarm)
            return
        alarm.drop_timer()
        if not self._running:
            for idle in self._idle:
                idle.drop_timer()
            self._idle.clear()
