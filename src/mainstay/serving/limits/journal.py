"""The limits' journal: an append-only file of checksummed JSON lines, owned by one process.

What `append` was given is in the operating system's hands when it returns, so it outlives a killed process;
what `defer` was given follows within 5 ms at most, or with the next `append` in the same write. A thread syncs to disk
within 50 ms, so a power cut loses at most that much. A torn last line is dropped on reading, a damaged one in
the middle is skipped and counted. Zero bytes may follow the last line while the file is open, and after a kill:
room that was allocated ahead (see `tail`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from mainstay.core.errors import Conflict
from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits.tail import open_tail

log = logging.getLogger(__name__)

FLUSH_WITHIN_S = 0.005
SYNC_WITHIN_S = 0.05
COMPACT_ABOVE_BYTES = 16 * 2**20

Entry = list[Any]


class Journal:
    """`entries()` is what the file held when it was opened. Bodies are whole JSON arrays, without line ends."""

    def __init__(self, path: Path, *, compact_above_bytes: int = COMPACT_ABOVE_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._least_large = self._compact_above = compact_above_bytes
        self._owner = _claim(path.with_suffix(".lock"))
        content = path.read_bytes().rstrip(b"\0") if path.exists() else b""
        self._entries, self.damaged = _read(path, content)
        self._fd = _open(path)
        self._tail = open_tail(self._fd, len(content))
        self._torn = len(content) > 0  # whatever lies there may lack its line end
        self._lock = threading.Lock()
        self._deferred: list[bytes] = []
        self._dirty = threading.Event()
        self._stopping = threading.Event()
        self._since: list[bytes] | None = None
        self._compact: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="limits-journal", daemon=True)
        self._thread.start()

    def entries(self) -> list[Entry]:
        return self._entries

    def on_large(self, compact: Callable[[], None]) -> None:
        """`compact` is called from the journal's thread when the file has grown large; it rewrites the file."""
        self._compact = compact

    def append(self, body: bytes) -> None:
        """One write, with all that was deferred. Raises BudgetStoreUnavailable (503) when the file takes no more;
        what was deferred is then kept for the next write."""
        with self._lock:
            self._write(_line(body))
        if not self._dirty.is_set():
            self._dirty.set()

    def defer(self, body: bytes) -> None:
        """At once where a write costs next to nothing; else, and when the file takes no more for now, within 5 ms,
        by the journal's thread or the next `append`. Never raises."""
        line = _line(body)
        if self._tail.gathers or not self._stored(line):
            self._deferred.append(line)
        if not self._dirty.is_set():
            self._dirty.set()

    def rewrite(self, bodies: Iterable[bytes]) -> None:
        """Replace the whole file by the same state in fewer entries: `begin_rewrite` and `finish_rewrite`."""
        self.begin_rewrite()
        self.finish_rewrite(bodies)

    def begin_rewrite(self) -> None:
        """From now on, what is appended goes into the old file and, at the end, into the new one.

        Call it while nothing else can append or defer, with the entries of that moment in hand.
        """
        with self._lock:
            self._write()  # they are older than the state in hand
            self._since = []

    def finish_rewrite(self, bodies: Iterable[bytes]) -> None:
        """Write and sync the new file without keeping anybody waiting, then switch by a rename."""
        beside = self._path.with_suffix(".new")
        handle = _open(beside, os.O_TRUNC)
        try:
            _write_all(handle, b"".join(_line(body) for body in bodies))
            os.fsync(handle)
            tail = open_tail(handle, os.fstat(handle).st_size)
            with self._lock:
                tail.append(b"".join(self._since or ()))
                beside.replace(self._path)
                old_tail, self._tail, self._torn = self._tail, tail, False
                old, self._fd = self._fd, handle
                self._compact_above = max(self._least_large, 4 * tail.size)
                self._since = None
        except BaseException:
            self._since = None
            os.close(handle)
            raise
        old_tail.close()
        os.close(old)
        _sync_folder(self._path.parent)
        self._dirty.set()

    def close(self) -> None:
        """Write what was deferred, sync, and release the file."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._dirty.set()
        self._thread.join()
        with self._lock:
            try:
                try:
                    self._write()
                finally:
                    self._tail.close()
                os.fsync(self._fd)
            except (BudgetStoreUnavailable, OSError) as error:
                log.error("the limits journal %s was not written to its end: %s", self._path, error)  # noqa: TRY400
            os.close(self._fd)
        os.close(self._owner)

    def _stored(self, line: bytes) -> bool:
        try:
            with self._lock:
                self._write(line)
        except BudgetStoreUnavailable:  # the next `append` tells
            return False
        return True

    def _write(self, line: bytes = b"") -> None:
        """Under the lock: what was deferred, and `line`. More may be deferred meanwhile."""
        deferred = self._deferred
        count = len(deferred)
        data = b"".join(deferred[:count]) + line if count else line
        if not data:
            return
        if self._torn:
            data = b"\n" + data
        try:
            self._tail.append(data)
        except OSError as error:  # entries that are then repeated do no harm: a hold is settled once
            self._torn = True
            raise _unavailable(error.strerror) from error
        self._torn = False
        if self._since is not None:
            self._since.append(data)
        if count:
            del deferred[:count]

    def _run(self) -> None:
        synced_at = 0.0
        while not self._stopping.is_set():
            self._dirty.wait()
            if self._stopping.wait(
                FLUSH_WITHIN_S if self._deferred or self._tail.gathers else SYNC_WITHIN_S / 2
            ):
                return
            self._dirty.clear()
            try:
                self._flush()
                if time.monotonic() - synced_at < SYNC_WITHIN_S / 2:
                    self._dirty.set()  # one sync serves many entries: come back for it
                    continue
                self._sync()
                synced_at = time.monotonic()
                if self._tail.size > self._compact_above and self._compact is not None:
                    self._compact()
            except (BudgetStoreUnavailable, OSError) as error:
                log.error("the limits journal %s was not synced: %s", self._path, error)  # noqa: TRY400

    def _flush(self) -> None:
        if self._deferred:
            with self._lock:
                self._write()

    def _sync(self) -> None:
        with self._lock:
            handle = os.dup(self._fd)  # appends go on while the disk syncs
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _line(body: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _read(path: Path, content: bytes) -> tuple[list[Entry], int]:
    """Every whole entry in order, and how many lines were damaged (a torn last one is not counted)."""
    *lines, tail = content.split(b"\n")
    entries = [_parsed(line) for line in lines if line]
    torn_but_whole = _parsed(tail) if tail else None
    found = [entry for entry in [*entries, torn_but_whole] if entry is not None]
    damaged = sum(entry is None for entry in entries)
    if damaged:
        log.error("the limits journal %s has %d damaged lines; they are skipped", path, damaged)
    return found, damaged


def _parsed(line: bytes) -> Entry | None:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    entry = orjson.loads(body)
    return entry if isinstance(entry, list) else None


def _open(path: Path, also: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | also, 0o600)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _claim(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Conflict(
            f"Another process keeps the budgets in {path.parent}.",
            fix="Stop the other `mainstay` on this data folder, or set redis_url (MAINSTAY_REDIS_URL) for both so that"
            " they share their limits, or give this one its own data_dir.",
        ) from error
    return handle


def _unavailable(reason: str | None) -> BudgetStoreUnavailable:
    return BudgetStoreUnavailable(
        f"Budgets cannot be recorded: {reason}.", fix="Free space in the data folder, then try again."
    )
