"""The spool: append-only segment files that make records durable before anything slower looks at them.

A segment is a file of frames: 4 bytes of magic, payload length and CRC-32 (little-endian, 4 bytes each; the
checksum covers length and payload), then the payload. Every writer has a segment of its own, held by an
advisory lock while it may still grow, so that several processes (server, commands) share one folder. Segments
are named by UUIDv7, so names sort by age. A torn frame at the end of a segment whose writer died is skipped;
after damage in the middle the reader finds the next whole frame.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mainstay.core.errors import InvalidInput, Unavailable
from mainstay.core.faults import fault
from mainstay.core.ids import uuid7_hex

MAGIC = b"\xf5MS1"
_HEADER = struct.Struct("<4sII")
FRAME_BYTES_MAX = 64 * 1024 * 1024
SEGMENT_BYTES = 16 * 1024 * 1024

Position = Mapping[str, int]
"""Bytes consumed of each segment, by file name. A segment that is absent was not read yet."""


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Payloads in the order they were appended, and the position after them. `skipped_bytes` were damaged."""

    payloads: tuple[bytes, ...]
    position: Position
    skipped_bytes: int = 0


class Spool:
    """One folder of segments. `append` is durable when it returns; thread-safe."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write and fsync all payloads. Raises Unavailable when the disk refuses; then nothing was promised."""
        data = b"".join(chain.from_iterable(map(_frame, payloads)))
        if not data:
            return
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                # After a failed write or fsync the segment's tail is unknown: never append to it again.
                self._seal()
                raise Unavailable(
                    f"The trace spool {self.folder} cannot be written: {error.strerror}.",
                    fix="Free disk space or mend the disk; recording goes on by itself.",
                ) from error
        fault("observe.after_spool")

    def read_from(self, position: Position, max_bytes: int = 4 * 1024 * 1024) -> SpoolBatch:
        """The next whole frames after `position`, about `max_bytes` of them, oldest segment first."""
        payloads: list[bytes] = []
        reached = dict(position)
        budget, skipped = max_bytes, 0
        for path in self.segments():
            read = _read_segment(path, reached.get(path.name, 0), budget)
            payloads += read.payloads
            budget -= read.offset - reached.get(path.name, 0)
            skipped += read.skipped_bytes
            reached[path.name] = read.offset
            if read.cut or budget <= 0:
                break
        return SpoolBatch(tuple(payloads), reached, skipped)

    def forget(self, position: Position) -> Position:
        """Delete segments that are wholly consumed and will not grow; returns the position without them."""
        kept: dict[str, int] = {}
        for path in self.segments():
            offset = position.get(path.name, 0)
            if _is_sealed(path) and path.stat().st_size <= offset:
                path.unlink()
            elif offset:
                kept[path.name] = offset
        return kept

    def pending_bytes(self, position: Position) -> int:
        """Bytes written and not consumed yet."""
        return sum(max(0, _size(path) - position.get(path.name, 0)) for path in self.segments())

    def sizes(self) -> Position:
        """The position at the end of everything written so far."""
        return {path.name: _size(path) for path in self.segments()}

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.spool"))

    def close(self) -> None:
        with self._lock:
            self._seal()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file, self._size = _new_segment(self.folder), 0
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._size += len(data)
        if self._size >= self._segment_bytes:
            self._seal()

    def _seal(self) -> None:
        if self._file is not None:
            os.close(self._file)  # which also gives the lock back
            self._file = None


def _new_segment(folder: Path) -> int:
    """A locked, empty, durable segment. It gets its name only when locked: a reader never sees it unlocked."""
    name = uuid7_hex()
    hidden = folder / f".{name}.new"
    file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    hidden.rename(folder / f"{name}.spool")
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return file


def _frame(payload: bytes) -> tuple[bytes, bytes]:
    """Its header and itself, to be copied only once."""
    if len(payload) > FRAME_BYTES_MAX:
        raise InvalidInput(f"A record of {len(payload)} bytes is too large to spool.")
    return _HEADER.pack(MAGIC, len(payload), _checksum(payload)), payload


def _checksum(payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))


def _is_sealed(path: Path) -> bool:
    """True when no writer holds the segment any more."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(file)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # drained and deleted by the process that drains
        return 0


class _Read(NamedTuple):
    payloads: list[bytes]
    offset: int
    skipped_bytes: int
    cut: bool = False
    """Whether the segment holds more than was asked for."""


def _read_segment(path: Path, offset: int, max_bytes: int) -> _Read:
    if _size(path) <= offset:
        return _Read([], offset, 0)
    sealed = _is_sealed(path)  # before reading: what a sealed segment holds is final
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(max_bytes)
        more = file.read(FRAME_BYTES_MAX + _HEADER.size) if _cut_short(data) else b""
    return _parse(data + more, offset, sealed)._replace(cut=len(data) == max_bytes)


def _cut_short(data: bytes) -> bool:
    """True when the first frame is longer than what was read."""
    if len(data) < _HEADER.size:
        return True
    length: int = _HEADER.unpack_from(data)[1]
    return data[: len(MAGIC)] != MAGIC or len(data) < _HEADER.size + length


def _parse(data: bytes, offset: int, sealed: bool) -> _Read:
    payloads: list[bytes] = []
    at = skipped = 0
    while at < len(data):
        payload = _frame_at(data, at)
        if payload is not None:
            payloads.append(payload)
            at += _HEADER.size + len(payload)
            continue
        following = _next_frame(data, at + 1)
        if following is None:
            break
        skipped += following - at
        at = following
    if sealed and at == 0:  # nothing whole is left in a file that will not grow: a torn tail
        return _Read(payloads, offset + len(data), len(data))
    return _Read(payloads, offset + at, skipped)


def _frame_at(data: bytes, at: int) -> bytes | None:
    """The payload of a whole, undamaged frame; None where there is none."""
    if data[at : at + len(MAGIC)] != MAGIC or at + _HEADER.size > len(data):
        return None
    _, length, checksum = _HEADER.unpack_from(data, at)
    payload = data[at + _HEADER.size : at + _HEADER.size + length]
    return payload if len(payload) == length and _checksum(payload) == checksum else None


def _next_frame(data: bytes, start: int) -> int | None:
    at = data.find(MAGIC, start)
    while at != -1 and _frame_at(data, at) is None:
        at = data.find(MAGIC, at + 1)
    return None if at == -1 else at
