"""The `mainstay` command: noun, then verb. Errors are one line and the fix; exit 2 for misuse."""

from __future__ import annotations

import logging
import os
import sys

# Before anything loads OpenMP: threads that wait by spinning starve the local engine on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from mainstay import __version__
from mainstay.cli import (
    ask,
    audit,
    config,
    corpora,
    demo,
    doctor,
    evaluations,
    keys,
    models,
    project,
    releases,
    server,
    traces,
    users,
)
from mainstay.cli.output import err
from mainstay.core.errors import InvalidInput, MainstayError

app = typer.Typer(
    name="mainstay",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The operational backbone for LLM applications. Start with [bold]mainstay init my-bot[/bold].",
)

START, APPS, WATCH, ADMIN = "Start", "Apps and knowledge", "See and measure", "Administer"

app.command("init", rich_help_panel=START)(project.init)
app.command("up", rich_help_panel=START)(server.up)
app.command("ask", rich_help_panel=START)(ask.ask)
app.command("demo", rich_help_panel=START)(demo.demo)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.command("plan", rich_help_panel=APPS)(project.plan)
app.command("apply", rich_help_panel=APPS)(project.apply)
app.command("schema", rich_help_panel=APPS)(project.schema)
app.add_typer(releases.app, name="release", rich_help_panel=APPS)
app.add_typer(corpora.app, name="corpus", rich_help_panel=APPS)
app.add_typer(models.app, name="models", rich_help_panel=APPS)
app.add_typer(traces.app, name="trace", rich_help_panel=WATCH)
app.add_typer(evaluations.app, name="eval", rich_help_panel=WATCH)
app.add_typer(audit.app, name="audit", rich_help_panel=WATCH)
app.add_typer(keys.app, name="key", rich_help_panel=ADMIN)
app.add_typer(users.app, name="user", rich_help_panel=ADMIN)
app.add_typer(config.app, name="config", rich_help_panel=ADMIN)
app.command("migrate", rich_help_panel=ADMIN)(server.migrate)
app.command("prune", rich_help_panel=ADMIN)(traces.prune)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mainstay {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """The operational backbone for LLM applications."""


def main() -> None:
    """Run the command line; Mainstay's own errors end as one line and the fix."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except MainstayError as error:
        err.print("error: " + error.message, style="bold red", markup=False)
        if error.fix:
            err.print(error.fix, markup=False)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)
