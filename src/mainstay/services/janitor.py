"""What a server does by itself from time to time: retention."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0


class Janitor:
    """Runs `tasks` once soon after `start`, then every hour. One task's failure is logged and stops no other."""

    def __init__(self, tasks: dict[str, Callable[[], object]], interval_s: float = INTERVAL_S) -> None:
        self._tasks = tasks
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            for name, task in self._tasks.items():
                try:
                    task()
                except Exception:  # the boundary of a background task
                    log.exception("the task %s failed", name)
            if self._stop.wait(self._interval_s):
                return
