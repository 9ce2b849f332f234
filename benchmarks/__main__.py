"""`make bench`: run the benches named on the command line, or all. The gateway's is `make bench-gateway`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import footprint
from benchmarks.measure import Figure, show, verdict, write

BENCHES: Mapping[str, Callable[[], list[Figure]]] = {"footprint": footprint.run}


def main(names: list[str]) -> int:
    unknown = [n for n in names if n not in BENCHES]
    if unknown:
        sys.stderr.write(f"no bench is called {', '.join(unknown)}; known: {', '.join(BENCHES)}\n")
        return 2
    figures = [f for name in names or BENCHES for f in BENCHES[name]()]
    show(figures)
    write(figures, Path(__file__).parent / "results.json")
    return verdict(figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
