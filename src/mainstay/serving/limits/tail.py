"""The end of a journal's file, where bytes are appended: stored into mapped pages where that is safe, else written.

A store into a shared mapping is in the operating system's hands when it returns, as what `write` was given is: both
outlive a killed process, and fsync brings both to the disk. The store makes no system call, so the thread that
serves requests keeps the interpreter's lock; giving it away and waiting for it again costs more than the write.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Protocol

_MOUNTS = Path("/proc/self/mountinfo")
_OVERWRITE_IN_PLACE = frozenset({"ext2", "ext3", "ext4", "tmpfs", "xfs"})
"""File systems where storing into what is allocated takes no more room, ever. One that copies on write (btrfs, ZFS)
may need some: a full disk would then end the process (SIGBUS)."""

_AHEAD_BYTES = 2**20
_NONE = -1
"""A handle that no file has: what is done with it is an OSError."""


class Tail(Protocol):
    """`size`: where the file's content ends. `gathers`: several entries are better appended at once. Used under a lock."""

    size: int
    gathers: bool

    def append(self, data: bytes) -> None:
        """Raises OSError when the file takes no more; then a part of `data` may be in it."""
        ...

    def close(self) -> None:
        """The file ends where its content does. The handle stays open, and nothing is appended to it any more."""
        ...


class WrittenTail:
    """One `write` each, to a handle opened with O_APPEND."""

    gathers = True

    def __init__(self, handle: int, size: int) -> None:
        self.size = size
        self._handle = handle

    def append(self, data: bytes) -> None:
        written = os.write(self._handle, data)
        self.size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, "the disk is full")

    def close(self) -> None:
        self._handle = _NONE


class MappedTail:
    """Stores into pages allocated ahead, which read as zero bytes until then.

    As they are allocated, a full disk is an OSError of `append`. Raises OSError when there is no room to begin with.
    """

    gathers = False

    def __init__(self, handle: int, size: int) -> None:
        self.size = size
        self._handle = handle
        self._pages, self._from, self._room = self._mapped(size)

    def append(self, data: bytes) -> None:
        end = self.size + len(data)
        if end > self._room:
            before = self._pages
            self._pages, self._from, self._room = self._mapped(end)
            before.close()
        self._pages[self.size - self._from : end - self._from] = data
        self.size = end

    def close(self) -> None:
        self._pages.close()
        handle, self._handle, self._room = self._handle, _NONE, 0
        os.ftruncate(handle, self.size)

    def _mapped(self, end: int) -> tuple[mmap.mmap, int, int]:
        """(mapping, where in the file it begins, where it ends): the content's last page, and room beyond `end`: as
        much again, within reason. Of what lies before, nothing is held in memory."""
        ahead = min(max(end, mmap.PAGESIZE), _AHEAD_BYTES)
        start = self.size // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        room = -(-(end + ahead) // mmap.PAGESIZE) * mmap.PAGESIZE
        os.posix_fallocate(self._handle, start, room - start)
        return mmap.mmap(self._handle, room - start, offset=start), start, room


def open_tail(handle: int, size: int) -> Tail:
    """For a file whose content ends at `size`; what lies beyond is cut off."""
    os.ftruncate(handle, size)
    if _overwrites_in_place(handle):
        try:
            return MappedTail(handle, size)
        except OSError:  # no room ahead: what there is may do for a while, and `write` tells when it does not
            os.ftruncate(handle, size)
    return WrittenTail(handle, size)


def _overwrites_in_place(handle: int) -> bool:
    if not _MOUNTS.exists():  # not Linux
        return False
    device = os.fstat(handle).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0] in _OVERWRITE_IN_PLACE
    return False
