"""Start of an engine's process, run by its path: `worker` without all that the packages above it import.

`import mainstay.models.engine.worker` would run those packages' `__init__`, and so import every provider: 0.3 CPU
seconds and 27 MB a process, measured, of which the worker needs nothing. So they are entered here as bare folders.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

BARE = {"mainstay.models.engine": Path(__file__).parent, "mainstay.models": Path(__file__).parent.parent}


def main() -> None:
    for name, folder in BARE.items():
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(folder)]
    from mainstay.models.engine.worker import main as work

    work()


if __name__ == "__main__":
    main()
