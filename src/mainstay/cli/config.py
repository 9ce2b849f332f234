"""`mainstay config`: every setting, its value and where that came from."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.output import JsonFlag, emit, out, table
from mainstay.core.config import SPECS, load_settings

app = typer.Typer(no_args_is_help=True, help="Settings: what they are and where they came from.")


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="Name of a setting, e.g. port.")], json: JsonFlag = False
) -> None:
    """Say a setting's value, where it came from, and how to change it."""
    settings = load_settings()
    origin = settings.origin(key)
    value = str(getattr(settings, key))
    data = {"key": key, "value": value, "origin": origin, "help": SPECS[key].help}

    def render() -> None:
        out.print(f"{key} = {value}", markup=False)
        out.print(f"from: {origin}", markup=False)
        out.print(SPECS[key].help, markup=False)
        out.print(
            f"Change it with the flag, MAINSTAY_{key.upper()}, or settings.{key} in mainstay.yaml.",
            markup=False,
        )

    emit(data, json, render)


@app.command("list")
def list_settings(json: JsonFlag = False) -> None:
    """List every setting with its value and origin."""
    settings = load_settings()
    rows = [
        {"key": k, "value": str(getattr(settings, k)), "origin": settings.origin(k), "help": s.help}
        for k, s in SPECS.items()
    ]
    emit(
        rows,
        json,
        lambda: table(
            ["setting", "value", "from", "what"], [tuple(r.values()) for r in rows], "There are no settings."
        ),
    )
