"""One figure with its target, and the file and table they end up in."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` is to be at most `target`, or at least it; both in `unit`.

    `value` None: not measured, and `note` says why. `target` None: told, not judged. `load` is the machine's
    1-minute load average (before the bench began, where the bench itself is a load).
    """

    name: str
    value: float | None
    unit: str
    target: float | None
    load: float
    at_least: bool = False
    note: str | None = None

    @property
    def ok(self) -> bool | None:
        """None when there is nothing to judge."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def bound(self) -> str | None:
        if self.target is None:
            return None
        return "at least" if self.at_least else "at most"

    def row(self) -> dict[str, Any]:
        """As it stands in `results.json`."""
        row = {
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "ok": self.ok,
            "load": self.load,
            "bound": self.bound,
            "note": self.note,
        }
        return {key: item for key, item in row.items() if item is not None or key in ("value", "ok")}


def figure(
    name: str,
    value: float | None,
    unit: str,
    target: float | None = None,
    *,
    at_least: bool = False,
    note: str | None = None,
    load: float | None = None,
) -> Figure:
    rounded = None if value is None else round(value, 4)
    return Figure(name, rounded, unit, target, load_average() if load is None else load, at_least, note)


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def write(figures: Sequence[Figure], path: Path) -> None:
    """Merge into the results of other benches: each name keeps its newest figure."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update({f.name: f.row() for f in figures})
    path.write_text(json.dumps(known, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "target", "ok", "load", "note", box=None, header_style="bold")
    for f in figures:
        value = "–" if f.value is None else f"{f.value:g} {f.unit}"
        target = "" if f.target is None else f"{'≥' if f.at_least else '≤'} {f.target:g}"
        table.add_row(f.name, value, target, _judged(f), f"{f.load}", f.note or "")
    Console(width=None if os.isatty(1) else 200).print(table)


def _judged(f: Figure) -> str:
    if f.ok is None:
        return "not measured" if f.value is None else ""
    return "yes" if f.ok else "NO"


def verdict(figures: Sequence[Figure]) -> int:
    """Exit status: 1 when a figure misses its target. What was not measured is no failure."""
    return 1 if any(f.ok is False for f in figures) else 0
