"""Draining: one thread moves spans from the spool into the trace store, exactly once in effect.

The position is saved after the store's commit, so a crash in between reads the same spans again, which the
store knows by (trace, span). A segment is deleted only after its spans are durable in the store.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from mainstay.core.errors import Unavailable
from mainstay.core.faults import fault
from mainstay.observe.codec import decode_spans
from mainstay.observe.spool import Position, Spool
from mainstay.observe.store import TraceStore

POLL_S = 0.2
RETRY_S = 1.0

log = logging.getLogger(__name__)


class Drain:
    """Spool to store, in the background. Several processes may run one: a lock lets one at a time work.

    Payloads that the store cannot take are set aside under `spool/refused/` and counted, so that one bad
    record never stops the others. `on_refused` is told their number.
    """

    def __init__(
        self, spool: Spool, store: TraceStore, on_refused: Callable[[int], None] | None = None
    ) -> None:
        self.refused = 0
        self._spool = spool
        self._store = store
        self._on_refused = on_refused
        self._position_path = spool.folder / "position.json"
        self._working = threading.Lock()  # one pass at a time in this process
        self._lock_file: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether this process brings what is spooled into the store."""
        return self._thread is not None

    def start(self) -> None:
        """Begin draining in the background."""
        self._thread = threading.Thread(target=self._run, name="mainstay-drain", daemon=True)
        self._thread.start()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until what is durable in the spool now is readable in the store. Raises Unavailable when late."""
        deadline = time.monotonic() + timeout_s
        goal = self._spool.sizes()
        while not self._drained_to(goal):
            if time.monotonic() > deadline:
                raise Unavailable(f"Traces were not stored within {timeout_s:g} seconds.")
            if not self.drain_once():
                self._stop.wait(0.05)

    def drain_once(self) -> int:
        """Move one batch; returns its number of payloads. 0 also while another process drains."""
        with self._working:
            if not self._hold_lock():
                return 0
            position = self._load_position()
            batch = self._spool.read_from(position)
            if batch.skipped_bytes:
                log.warning("Skipped %d damaged bytes in the trace spool.", batch.skipped_bytes)
            if batch.payloads:
                self._ingest(batch.payloads)
                fault("observe.mid_drain")
            if batch.position != position:
                self._save_position(batch.position)
            kept = self._spool.forget(batch.position)
            if kept != batch.position:
                self._save_position(kept)
            return len(batch.payloads)

    def pending_bytes(self) -> int:
        """Bytes in the spool that the store has not taken yet."""
        return self._spool.pending_bytes(self._load_position())

    def close(self) -> None:
        """Drain what is there (if this process drains), then stop and let others drain."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._working:
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            try:
                moved = self.drain_once()
            except Exception:  # the thread's boundary: full disk, locked file; the spool keeps all meanwhile
                log.exception("Traces wait in the spool: they cannot be stored now.")
                moved = 0
                self._stop.wait(RETRY_S)
            if not moved:
                if stopping:
                    return
                self._stop.wait(POLL_S)

    def _ingest(self, payloads: Sequence[bytes]) -> None:
        try:
            self._store.ingest([span for payload in payloads for span in decode_spans(payload)])
        except (sqlite3.OperationalError, OSError):
            raise
        except Exception:  # a boundary: one bad payload must not stop the rest, and is recorded
            for payload in payloads:
                self._ingest_alone(payload)

    def _ingest_alone(self, payload: bytes) -> None:
        try:
            self._store.ingest(decode_spans(payload))
        except (sqlite3.OperationalError, OSError):
            raise
        except Exception:
            folder = self._spool.folder / "refused"
            folder.mkdir(exist_ok=True)
            path = folder / f"{time.time_ns()}.json"
            path.write_bytes(payload)
            log.exception("The trace store cannot take a record; it is kept in %s.", path)
            self.refused += 1
            if self._on_refused is not None:
                self._on_refused(1)

    def _hold_lock(self) -> bool:
        if self._lock_file is not None:
            return True
        file = os.open(self._spool.folder / "drain.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._lock_file = file
        return True

    def _load_position(self) -> Position:
        """The saved position; nothing consumed when there is none or it is unreadable, which costs time only."""
        try:
            found = orjson.loads(self._position_path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return {str(name): int(offset) for name, offset in found.items()} if isinstance(found, dict) else {}

    def _save_position(self, position: Position) -> None:
        # Without fsync: an older position after a power loss means reading spans again, not losing them.
        part: Path = self._position_path.with_suffix(".part")
        part.write_bytes(orjson.dumps(dict(position)))
        part.replace(self._position_path)

    def _drained_to(self, goal: Position) -> bool:
        reached = self._load_position()
        there = {path.name for path in self._spool.segments()}
        return all(reached.get(name, 0) >= size for name, size in goal.items() if name in there)
