"""`mainstay audit`: who changed what, and proof that the log is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from mainstay.cli.context import local_stores
from mainstay.cli.output import JsonFlag, emit, say, table
from mainstay.core.clock import to_iso
from mainstay.core.content import short

if TYPE_CHECKING:
    from mainstay.services import Stores

WHAT_CHARS = 100
TELLING = (
    "email",
    "name",
    "role",
    "reason",
    "note",
    "number",
    "added",
    "changed",
    "removed",
    "failed",
    "target",
    "dataset",
    "cases",
    "models",
    "groups",
    "by",
    "minutes",
    "days",
    "deleted",
    "digest",
)

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
        names = known_names(stores)
    rows = [
        (
            e.sequence,
            to_iso(e.at_us),
            names.get(e.actor, e.actor),
            e.action,
            names.get(e.target, e.target),
            what_happened(e.detail),
        )
        for e in entries
    ]
    columns = [">#", "time", "actor", "action", "target", "what"]
    emit(entries, json, lambda: table(columns, rows, "Nothing has changed yet."))


def known_names(stores: Stores) -> dict[str, str]:
    """What people call an id: a user's e-mail address, a key's name beside its id, `team support`."""
    users = {user.id: user.email for user in stores.users.list()}
    keys = {key.id: f"{key.name} ({key.id})" for key in stores.keys.list()}
    teams = {team.id: f"team {team.name}" for team in stores.teams.list()}
    return users | keys | teams | {p.id: f"project {p.name}" for p in stores.projects.list()}


def what_happened(detail: Mapping[str, object]) -> str:
    """The most telling parts of a row's detail on one short line: `r1 → r2 · reason: gate passed`."""
    parts = []
    if "to" in detail:
        parts.append(f"{_place(detail.get('from'))} → {_place(detail['to'])}")
    for key in TELLING:
        value = detail.get(key)
        if value not in (None, "", [], {}):
            parts.append(f"{key}: {_short(value)}")
    line = " · ".join(parts)
    return line if len(line) <= WHAT_CHARS else line[: WHAT_CHARS - 1] + "…"


def _place(value: object) -> str:
    """A release by its number, anything else as it is called; `none` before the first."""
    if value is None:
        return "none"
    return f"r{value}" if isinstance(value, int) else _short(value)


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    text = " ".join(str(value).split())
    return short(text) if text.startswith("sha256:") else text


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
