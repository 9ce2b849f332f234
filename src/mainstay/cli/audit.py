"""`mainstay audit`: who changed what, and proof that the log is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.context import local_stores
from mainstay.cli.output import JsonFlag, emit, say, table
from mainstay.core.clock import to_iso

app = typer.Typer(no_args_is_help=True, help="The audit log: list, verify.")


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many rows.")] = 30,
    before: Annotated[int | None, typer.Option(help="Only rows before this sequence number.")] = None,
    json: JsonFlag = False,
) -> None:
    """List audit rows, newest first."""
    with local_stores() as stores:
        entries = stores.audit.list(before=before, limit=limit)
    rows = [(e.sequence, to_iso(e.at_us), e.actor, e.action, e.target) for e in entries]
    emit(
        entries,
        json,
        lambda: table([">#", "time", "actor", "action", "target"], rows, "Nothing has changed yet."),
    )


@app.command()
def verify(json: JsonFlag = False) -> None:
    """Recompute the hash chain; exit 1 and name the first bad row when it was tampered with."""
    with local_stores() as stores:
        verdict = stores.audit.verify()

    def render() -> None:
        if verdict.ok:
            say(f"{verdict.rows} audit rows, chain whole.")
        else:
            say(f"The audit log is damaged at row {verdict.first_bad_sequence}: {verdict.reason}")

    emit(verdict, json, render)
    if not verdict.ok:
        raise typer.Exit(1)
