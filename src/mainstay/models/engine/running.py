"""Engine processes that run on this machine, whichever gateway started them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mainstay.models.engine.memory import resident_bytes
from mainstay.models.engine.process import PROGRAM

_PROGRAM: Final = "/".join(("", *PROGRAM.parts[-4:])).encode()
"""`/mainstay/models/engine/boot.py`, wherever it is installed."""


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """`memory_bytes` is what it holds now, None where that is not to be had."""

    pid: int
    gguf: Path
    memory_bytes: int | None


def running_engines() -> tuple[RunningEngine, ...]:
    """Read from the list of processes (Linux; elsewhere none are found), so no gateway has to be asked."""
    found = (_engine(folder) for folder in Path("/proc").glob("[0-9]*"))
    return tuple(engine for engine in found if engine is not None)


def _engine(folder: Path) -> RunningEngine | None:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return None
    if b"--model" not in words or not any(word.endswith(_PROGRAM) for word in words):
        return None
    at = words.index(b"--model") + 1
    pid = int(folder.name)
    return RunningEngine(pid, Path(words[at].decode("utf-8", "replace")), resident_bytes(pid))
