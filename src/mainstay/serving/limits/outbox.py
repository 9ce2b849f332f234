"""Settlements on their way to Redis, kept in a file of this process until Redis has them.

["settle", hold, nusd or null, tokens or null]      to be told
["done", hold]                                      Redis knows
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import orjson

from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits.journal import Journal

log = logging.getLogger(__name__)

Settlement = tuple[int | None, int | None]
"""(nano-dollars, tokens); None: as much as was held."""


class Outbox:
    """`pending` are the settlements that Redis has not confirmed. Without a path, only memory keeps them."""

    def __init__(self, path: Path | None) -> None:
        self.pending: dict[str, Settlement] = {}
        self._lock = threading.Lock()
        self._journal = None if path is None else Journal(path)
        if self._journal is not None:
            self._read(self._journal)
            self._journal.rewrite(self._bodies())
            self._journal.on_large(self._compact)

    def add(self, hold_id: str, settlement: Settlement) -> None:
        with self._lock:
            self.pending[hold_id] = settlement
            if self._journal is None:
                return
            try:
                self._journal.append(_settle(hold_id, settlement))
            except BudgetStoreUnavailable as error:  # memory still has it
                log.error("a settlement is kept in memory only: %s", error)  # noqa: TRY400

    def done(self, hold_id: str) -> None:
        with self._lock:
            if self.pending.pop(hold_id, None) is not None and self._journal is not None:
                self._journal.defer(orjson.dumps(["done", hold_id]))

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _read(self, journal: Journal) -> None:
        for kind, hold_id, *settlement in journal.entries():
            if kind == "settle":
                self.pending[hold_id] = (settlement[0], settlement[1])
            elif kind == "done":
                self.pending.pop(hold_id, None)

    def _compact(self) -> None:
        assert self._journal is not None
        with self._lock:
            bodies = self._bodies()
            self._journal.begin_rewrite()
        self._journal.finish_rewrite(bodies)

    def _bodies(self) -> list[bytes]:
        return [_settle(hold_id, settlement) for hold_id, settlement in self.pending.items()]


def _settle(hold_id: str, settlement: Settlement) -> bytes:
    return orjson.dumps(["settle", hold_id, *settlement])
