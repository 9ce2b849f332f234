"""`mainstay config`: every setting, its value and where that came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import typer

from mainstay.cli.output import JsonFlag, emit, out, table, warn
from mainstay.core.config import SPECS, load_settings
from mainstay.core.errors import nearest
from mainstay.core.secret import Secret

app = typer.Typer(no_args_is_help=True, help="Settings: what they are and where they came from.")


# Variables of ours that are no settings: for tests, measurements and crash drills, and the key in examples.
OTHER_VARIABLES = frozenset(
    {"MAINSTAY_FAULT", "MAINSTAY_DATA", "MAINSTAY_TEST_POSTGRES", "MAINSTAY_SEED", "MAINSTAY_KEY"}
)
FLAGS_OF_UP = {"host": "--host", "port": "--port", "data_dir": "--data-dir"}


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="Name of a setting, e.g. port.")], json: JsonFlag = False
) -> None:
    """Say a setting's value, where it came from, and how to change it."""
    settings = load_settings()
    origin = settings.origin(key)
    value = shown_value(getattr(settings, key))
    data = {"key": key, "value": value, "origin": origin, "help": SPECS[key].help}

    def render() -> None:
        out.print(f"{key} = {value}", markup=False)
        out.print(f"from: {origin}", markup=False)
        out.print(SPECS[key].help, markup=False)
        out.print(how_to_change(key), markup=False)

    emit(data, json, render)


@app.command("list")
def list_settings(json: JsonFlag = False) -> None:
    """List every setting with its value and origin; warn of MAINSTAY_ variables that set nothing."""
    settings = load_settings()
    rows = [
        {"key": k, "value": shown_value(getattr(settings, k)), "origin": settings.origin(k), "help": s.help}
        for k, s in SPECS.items()
    ]
    emit(
        rows,
        json,
        lambda: table(
            ["setting", "value", "from", "what"], [tuple(r.values()) for r in rows], "There are no settings."
        ),
    )
    for warning in misspelt_variables(os.environ):
        warn(warning)


def shown_value(value: object) -> str:
    """As one would write it in mainstay.yaml; `none` when unset, `***` for a secret."""
    if value is None:
        return "none"
    if isinstance(value, Secret):
        return "***"
    return str(value).lower() if isinstance(value, bool) else str(value)


def how_to_change(key: str) -> str:
    flag = f"the flag {FLAGS_OF_UP[key]} of `mainstay up`, " if key in FLAGS_OF_UP else ""
    return f"Change it with {flag}MAINSTAY_{key.upper()}, or settings.{key} in mainstay.yaml."


def misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """A line for each MAINSTAY_ variable that sets nothing, with the nearest that does."""
    known = {f"MAINSTAY_{key.upper()}" for key in SPECS}
    unknown = sorted(
        name for name in environment if name.startswith("MAINSTAY_") and name not in known | OTHER_VARIABLES
    )
    lines = []
    for name in unknown:
        near = nearest(name, known)
        lines.append(
            f"{name} sets nothing. " + (f"Did you mean {near}?" if near else "See: mainstay config list")
        )
    return lines
