"""`mainstay release`: the releases of an app, their differences, and which one answers."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.context import actor, local_services
from mainstay.cli.output import JsonFlag, emit, say, table
from mainstay.cli.project import render_changes
from mainstay.core.clock import to_iso
from mainstay.core.content import short
from mainstay.core.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Releases: list, diff, promote, roll back.")

App = Annotated[str, typer.Argument(help="The app's name.")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Which pointer to move.")]


def release_number(text: str) -> int:
    """`r12` or `12` as 12. Raises InvalidInput otherwise."""
    digits = text.removeprefix("r")
    if not digits.isdigit():
        raise InvalidInput(
            f"{text!r} is no release.", fix="Write it like r12; see: mainstay release list APP"
        )
    return int(digits)


@app.command("list")
def list_releases(
    app_name: Annotated[str | None, typer.Argument(metavar="[APP]", help="Only this app.")] = None,
    json: JsonFlag = False,
) -> None:
    """List releases, newest first, with the environments that point at them."""
    with local_services() as services:
        apps = [app_name] if app_name else list(services.delivery.apps())
        listed = [
            (r, services.delivery.environments(r.app)) for a in apps for r in services.delivery.releases(a)
        ]
    rows = [
        (
            r.app,
            f"r{r.number}",
            short(r.digest),
            ", ".join(e.name for e in environments if e.release == r.number),
            to_iso(r.created_at_us),
            r.created_by,
            r.note,
        )
        for r, environments in listed
    ]
    emit(
        [r for r, _ in listed],
        json,
        lambda: table(
            ["app", "release", "digest", "environments", "created", "by", "note"],
            rows,
            "None yet: mainstay apply",
        ),
    )


@app.command()
def diff(
    app_name: App,
    a: Annotated[str, typer.Argument(help="Older release, e.g. r1.")],
    b: Annotated[str, typer.Argument(help="Newer release, e.g. r2.")],
    json: JsonFlag = False,
) -> None:
    """Show what differs between two releases: prompt, model, knowledge, policy, settings."""
    with local_services() as services:
        shown = services.delivery.diff(app_name, release_number(a), release_number(b))
    emit(shown, json, lambda: render_changes(shown.changes))


@app.command()
def promote(
    app_name: App,
    release: Annotated[str, typer.Argument(help="The release to promote, e.g. r2.")],
    environment: Environment = "production",
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: JsonFlag = False,
) -> None:
    """Point an environment at a release; gateways follow within a second."""
    with local_services() as services:
        moved = services.delivery.promote(actor(), app_name, environment, release_number(release), reason)
    emit(moved, json, lambda: say(f"{app_name}@{environment} is now r{moved.release}."))


@app.command()
def rollback(
    app_name: App,
    environment: Environment = "production",
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: JsonFlag = False,
) -> None:
    """Point an environment back at the release it had before."""
    with local_services() as services:
        moved = services.delivery.rollback(actor(), app_name, environment, reason)
    emit(moved, json, lambda: say(f"{app_name}@{environment} is back on r{moved.release}."))
