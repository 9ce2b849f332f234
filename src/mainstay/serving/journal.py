"""The ledger's journal: one checksummed JSON line an entry, appended before memory changes.

A line is in the operating system's hands when `append` returns, so it outlives a killed process; a thread
syncs to disk within 50 ms, so a power cut loses at most that much. A torn last line is dropped on reading,
a damaged one in the middle is skipped and counted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from mainstay.core.errors import Conflict, Unavailable

log = logging.getLogger(__name__)

SYNC_WITHIN_S = 0.05
COMPACT_ABOVE_BYTES = 8 * 2**20

Entry = list[Any]


class JournalUnavailable(Unavailable):
    code = "budget_store_unavailable"


class Journal:
    """An append-only file owned by one process. `entries()` is what it held when it was opened."""

    def __init__(self, path: Path, *, compact_above_bytes: int = COMPACT_ABOVE_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._compact_above = compact_above_bytes
        self._owner = _claim(path.with_suffix(".lock"))
        self._entries, self.damaged = _read(path)
        self._fd = _open(path)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0  # whatever lies there may lack its line end
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._stopping = threading.Event()
        self._since: list[bytes] | None = None
        self._compact: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-journal", daemon=True)
        self._thread.start()

    def entries(self) -> list[Entry]:
        return self._entries

    def on_large(self, compact: Callable[[], None]) -> None:
        """`compact` is called from the journal's thread when the file has grown large; it rewrites the file."""
        self._compact = compact

    def append(self, entry: Entry) -> None:
        """Raises JournalUnavailable (503) when the file takes no more."""
        with self._lock:
            line = (b"\n" if self._torn else b"") + _line(entry)
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                raise _unavailable(error.strerror) from error
            self._size += written
            if self._since is not None:
                self._since.append(_line(entry))
            self._torn = written < len(line)
        self._dirty.set()
        if self._torn:
            raise _unavailable("the disk is full")

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """Replace the whole file by the same state in fewer entries: `begin_rewrite` and `finish_rewrite`."""
        self.begin_rewrite()
        self.finish_rewrite(entries)

    def begin_rewrite(self) -> None:
        """From now on, what is appended goes into the old file and, at the end, into the new one.

        Call it while nothing else can append, with the entries of that moment in hand.
        """
        with self._lock:
            self._since = []

    def finish_rewrite(self, entries: Iterable[Entry]) -> None:
        """Write and sync the new file without keeping anybody waiting, then switch by a rename."""
        beside = self._path.with_suffix(".new")
        handle = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, b"".join(_line(entry) for entry in entries))
            os.fsync(handle)
            with self._lock:
                _write_all(handle, b"".join(self._since or ()))
                beside.replace(self._path)
                old, self._fd = self._fd, handle
                self._size, self._torn = os.fstat(handle).st_size, False
                self._since = None
        except BaseException:
            self._since = None
            os.close(handle)
            raise
        os.close(old)
        self._dirty.set()

    def close(self) -> None:
        """Sync and release the file."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._dirty.set()
        self._thread.join()
        with self._lock:
            os.fsync(self._fd)
            os.close(self._fd)
        os.close(self._owner)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._dirty.wait()
            if self._stopping.wait(SYNC_WITHIN_S / 2):  # lets one sync serve many entries
                return
            self._dirty.clear()
            try:
                with self._lock:
                    handle = os.dup(self._fd)  # appends go on while the disk syncs
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
                if self._size > self._compact_above and self._compact is not None:
                    self._compact()
            except OSError as error:
                log.error("the budget journal %s was not synced: %s", self._path, error)  # noqa: TRY400


def _line(entry: Entry) -> bytes:
    body = orjson.dumps(entry)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _read(path: Path) -> tuple[list[Entry], int]:
    """Every whole entry in order, and how many lines were damaged (a torn last one is not counted)."""
    if not path.exists():
        return [], 0
    *lines, tail = path.read_bytes().split(b"\n")
    entries = [_parsed(line) for line in lines if line]
    torn_but_whole = _parsed(tail) if tail else None
    found = [entry for entry in [*entries, torn_but_whole] if entry is not None]
    damaged = sum(entry is None for entry in entries)
    if damaged:
        log.error("the budget journal %s has %d damaged lines; they are skipped", path, damaged)
    return found, damaged


def _parsed(line: bytes) -> Entry | None:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    entry = orjson.loads(body)
    return entry if isinstance(entry, list) else None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _claim(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Conflict(
            f"Another process keeps the budgets in {path.parent}.",
            fix="Stop the other `mainstay` on this data folder, or give this one its own data_dir.",
        ) from error
    return handle


def _unavailable(reason: str | None) -> JournalUnavailable:
    return JournalUnavailable(
        f"Budgets cannot be recorded: {reason}.", fix="Free space in the data folder, then try again."
    )
