"""A gateway on a host of its own builds the indexes that releases need, and serves what it can meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from mainstay.core.errors import MainstayError
from mainstay.delivery.types import RunnableRelease
from mainstay.retrieval import Indexes

log = logging.getLogger(__name__)

RETRY_S = 30.0

Runnables = Mapping[str, RunnableRelease]


class MissingIndexes:
    """Puts the release before in the place of one whose index is not on this host yet, and builds the index.

    `on_built` is called in the builder's thread each time one is there. Indexes are made from the control database.
    """

    def __init__(self, indexes: Indexes, on_built: Callable[[], object]) -> None:
        self._indexes = indexes
        self._on_built = on_built
        self._wanted: set[str] = set()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def served(self, wanted: Runnables, before: Runnables) -> Runnables:
        """`wanted`, with what was served before under a name where its own index is missing."""
        served, missing = {}, set()
        for name, runnable in wanted.items():
            if self._ready(runnable):
                served[name] = runnable
                continue
            assert runnable.corpus is not None
            missing.add(runnable.corpus)
            last = before.get(name)
            served[name] = last if last is not None and self._ready(last) else runnable
        self._want(missing)
        return served

    def close(self) -> None:
        """An index being built is left; the next start makes it."""
        self._closing.set()
        with self._changed:
            self._changed.notify()

    def _ready(self, runnable: RunnableRelease) -> bool:
        return runnable.corpus is None or self._indexes.ready(runnable.corpus)

    def _want(self, snapshots: set[str]) -> None:
        with self._changed:
            self._wanted = snapshots
            self._changed.notify()
        if snapshots and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="missing-indexes", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closing.is_set())
                wanted = sorted(self._wanted)
            for snapshot in wanted:
                if not self._closing.is_set():
                    self._build(snapshot)

    def _build(self, snapshot: str) -> None:
        try:
            self._indexes.build(snapshot)
        except MainstayError as error:
            log.warning("the index of corpus snapshot %s cannot be built now: %s", snapshot, error)
            self._closing.wait(RETRY_S)
            return
        except Exception:  # the thread's boundary: the next try may do better
            log.exception("the index of corpus snapshot %s cannot be built now", snapshot)
            self._closing.wait(RETRY_S)
            return
        with self._changed:
            self._wanted.discard(snapshot)
        self._on_built()
