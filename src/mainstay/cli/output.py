"""How commands speak: data to stdout (a table, or JSON with `--json`), talk to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mainstay.core.jsonable import dumps

if TYPE_CHECKING:
    from rich.progress import Progress

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# Data is shown as it stands: `:warning:` in a question is no picture.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def emit(data: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `data` as JSON, or call `render` for people."""
    if as_json:
        sys.stdout.write(dumps(data, indent=True).decode() + "\n")
    else:
        render()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A plain table; a leading `>` in a column's name right-aligns it. `empty` says what to do when none."""
    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        title = Text(name.removeprefix(">"))
        shown.add_column(title, justify="right" if name.startswith(">") else "left", overflow="fold")
    count = 0
    for row in rows:
        shown.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
        count += 1
    if count:
        # At its natural width, also beyond the terminal's: an id cut into pieces cannot be copied.
        Console(file=out.file, highlight=False, width=1000).print(shown)
    else:
        err.print(empty, markup=False)


def progress_bar(label: str) -> Progress:
    """A bar on stderr that counts items; gone when done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn(label.replace("{", "{{").replace("}", "}}"), markup=False),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


@contextmanager
def stdout_for_data_only(wanted: bool) -> Iterator[None]:
    """While within, what people would read goes to stderr, so that stdout holds JSON alone."""
    out.stderr = wanted
    try:
        yield
    finally:
        out.stderr = False


def say(message: str) -> None:
    """Talk for people, on stderr, as it stands."""
    err.print(message, markup=False)


def warn(message: str) -> None:
    """A line that nothing stops for, on stderr."""
    err.print("warning: " + message, style="yellow", markup=False)
