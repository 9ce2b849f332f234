"""One figure with its target, and the file and table they end up in."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` must not exceed `target`; both in `unit`. `load` is the machine's 1-minute load average."""

    name: str
    value: float
    unit: str
    target: float
    load: float

    @property
    def ok(self) -> bool:
        return self.value <= self.target


def figure(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, round(value, 3), unit, target, round(os.getloadavg()[0], 2))


def write(figures: Sequence[Figure], path: Path) -> None:
    """Merge into the results of other benches: each name keeps its newest figure."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for f in figures:
        known[f.name] = {k: v for k, v in asdict(f).items() if k != "name"} | {"ok": f.ok}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "target", "ok", "load", box=None, header_style="bold")
    for f in figures:
        table.add_row(
            f.name, f"{f.value:g} {f.unit}", f"≤ {f.target:g}", "yes" if f.ok else "NO", f"{f.load}"
        )
    Console().print(table)
