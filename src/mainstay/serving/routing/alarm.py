"""One timer for one request: ends whatever the request waits for, without a task or a context per delta."""

from __future__ import annotations

import asyncio


class Alarm:
    """Cancels the task that is registered in `task` when the time comes, and knows that it did.

    Whoever waits sets `task` to its own task before the wait and to None after it: outside, the alarm only
    notes that it rang. `owns_cancellation` tells its own cancellation from one that came from outside, and takes
    it back (as `asyncio.timeout` does; `Task.uncancel`, Python 3.11).
    """

    __slots__ = ("_cancelled", "_handle", "_loop", "_outer", "at_s", "rang", "task")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, at_s: float, task: asyncio.Task[object] | None
    ) -> None:
        self._loop = loop
        self._cancelled: asyncio.Task[object] | None = None
        self._outer = 0 if task is None else task.cancelling()
        self.task = task
        self.rang = False
        self.at_s = at_s
        self._handle: asyncio.TimerHandle | None = loop.call_at(at_s, self._ring)

    def set(self, at_s: float) -> None:
        """Ring then instead, also if it has rung."""
        if at_s == self.at_s and self._handle is not None:
            return
        self.stop()
        if self._cancelled is not None:  # whoever was cancelled made another error of it
            self.owns_cancellation()
        self.rang, self.at_s = False, at_s
        self._handle = self._loop.call_at(at_s, self._ring)

    def close(self) -> None:
        """Never ring again, and leave no cancellation of ours with the task."""
        self.task = None
        self.stop()
        if self._cancelled is not None:
            self.owns_cancellation()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def owns_cancellation(self) -> bool:
        """Was a CancelledError that was just caught only ours? Takes it back from the task either way."""
        task, self._cancelled = self._cancelled, None
        return task is not None and task.uncancel() <= self._outer

    def _ring(self) -> None:
        self._handle = None
        self.rang = True
        if self.task is not None:
            self._cancelled = self.task
            self.task.cancel()
