"""The `mainstay` command: noun, then verb. Errors are one line and the fix; exit 2 for misuse."""

from __future__ import annotations

import logging
import os
import sys

# Before anything loads OpenMP: threads that wait by spinning starve the local engine on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from mainstay import __version__
from mainstay.cli.lazy import Entry, lazy_group
from mainstay.core.errors import InvalidInput, MainstayError

START, APPS, WATCH, ADMIN = "Start", "Apps and knowledge", "See and measure", "Administer"

# One line a command, so that the list reads as the help page does.
# fmt: off
COMMANDS = (
    Entry("init", "project:init", START, "Make a new project: a commented mainstay.yaml, a prompt, a policy and a knowledge folder."),
    Entry("up", "server:up", START, "Apply this folder's project, serve it, and print the address and a one-time sign-in link."),
    Entry("gateway", "gateway:gateway", START, "Serve `/v1` alone, without pages: to be scaled by processes and hosts beside one `mainstay control`."),
    Entry("control", "server:control", START, "Serve pages, control API and telemetry alone, and bring what gateways record into the trace store."),
    Entry("ask", "ask:ask", START, "Ask an app or a model. Uses the running server, or starts one for this question."),
    Entry("demo", "demo:demo", START, "Ingest a handbook, ask, evaluate, change the prompt, promote and roll back. Killed? Run it again."),
    Entry("doctor", "doctor:doctor", START, "Check this installation and say how to mend what is wrong. Exit 1 when something is."),
    Entry("plan", "project:plan", APPS, "Show what `apply` would change, and change nothing."),
    Entry("apply", "project:apply", APPS, "Sync the knowledge and make new versions of what changed; unchanged input makes none."),
    Entry("schema", "project:schema", APPS, "Print the JSON Schema of mainstay.yaml, for editors."),
    Entry("release", "releases:app", APPS, "Releases: list, diff, promote, roll back."),
    Entry("corpus", "corpora:app", APPS, "Knowledge: corpora, documents, snapshots, diff, roll back, search."),
    Entry("models", "models:app", APPS, "Models: list, add, remove."),
    Entry("trace", "traces:app", WATCH, "Traces: list, show, replay."),
    Entry("eval", "evaluations:app", WATCH, "Evaluations: run, compare, list."),
    Entry("audit", "audit:app", WATCH, "The audit log: list, verify."),
    Entry("key", "keys:app", ADMIN, "API keys: create, list, assign, revoke."),
    Entry("limits", "limits:app", ADMIN, "Limits of keys, users, teams, projects and apps: set, show, clear."),
    Entry("team", "teams:teams", ADMIN, "Teams that share limits: create, list, rename, delete."),
    Entry("project", "teams:projects", ADMIN, "Projects that keys are made for: create, list, rename, move, delete."),
    Entry("user", "users:app", ADMIN, "People: create, list, change role, disable, sign-in links."),
    Entry("config", "config:app", ADMIN, "Settings: what they are and where they came from."),
    Entry("migrate", "database:migrate", ADMIN, "Bring the control database to the schema this version needs."),
    Entry("prune", "traces:prune", ADMIN, "Delete traces older than trace_retention_days; written to the audit log."),
)
# fmt: on

app = typer.Typer(
    name="mainstay",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The operational backbone for LLM applications. Start with [bold]mainstay init my-bot[/bold].",
)


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
        from mainstay.cli.output import err

        err.print("error: " + error.message, style="bold red", markup=False)
        if error.fix:
            err.print(error.fix, markup=False)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)
