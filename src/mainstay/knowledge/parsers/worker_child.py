"""The parsing process: `python -m mainstay.knowledge.parsers.worker_child FD MEMORY_MIB TIME_S`."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from mainstay.knowledge.parsers import registry
from mainstay.knowledge.parsers.worker import serve


def _limit_memory(mebibytes: int) -> None:
    """A limit on address space; systems without one (macOS) leave only the time limit."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    descriptor, memory_mib, time_s = sys.argv[1:]
    registry.load_entry_points()
    _limit_memory(int(memory_mib))
    serve(Connection(int(descriptor)), float(time_s))


if __name__ == "__main__":
    main()
