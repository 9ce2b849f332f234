"""`mainstay doctor`: checks this installation, and says how to mend what it finds. It changes nothing."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from mainstay.cli.config import misspelt_variables
from mainstay.cli.context import project_here
from mainstay.cli.output import JsonFlag, emit, out
from mainstay.core.config import Settings, load_settings
from mainstay.core.database import Database
from mainstay.core.errors import MainstayError
from mainstay.core.migrations import revisions
from mainstay.models import install
from mainstay.services import model_warnings, running_server


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fix` is empty when the state is ok."""

    name: str
    state: Literal["ok", "warning", "problem"]
    finding: str
    fix: str = ""


SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}
NEEDED_MODULES = ("xllamacpp", "onnxruntime", "tokenizers", "pypdfium2", "xberg", "trafilatura", "uvloop")


def doctor(json: JsonFlag = False) -> None:
    """Check this installation and say how to mend what is wrong. Exit 1 when something is."""
    settings = load_settings()
    checks = [_run(check, settings) for check in CHECKS]
    emit(checks, json, lambda: render(checks))
    if any(c.state == "problem" for c in checks):
        raise typer.Exit(1)


def render(checks: list[Check]) -> None:
    """Three columns; the further lines of a finding, and its fix, stay in the third."""
    for check in checks:
        first, *more = [*check.finding.splitlines(), *check.fix.splitlines()] or [""]
        out.print(f"{SIGNS[check.state]} {check.name:<16} {first}", markup=False)
        for line in more:
            out.print(f"{'':<19}{line}", markup=False)


def _run(check: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return check(settings)
    except MainstayError as error:
        return Check(_name(check), "problem", error.message, error.fix or "")
    except OSError as error:
        return Check(_name(check), "problem", str(error), "Check the path and its permissions.")


def _name(check: Callable[[Settings], Check]) -> str:
    return check.__name__.strip("_").replace("_", " ")


def _python(_: Settings) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", f"Python {version}, SQLite {sqlite3.sqlite_version}")


def _packages(_: Settings) -> Check:
    broken = []
    for name in NEEDED_MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            broken.append(f"{name} ({error})")
    if broken:
        fix = "Install again from where it came: in the clone, pip install --force-reinstall ."
        return Check("packages", "problem", "cannot import " + ", ".join(broken), fix)
    return Check("packages", "ok", f"{len(NEEDED_MODULES)} compiled parts load")


def _full_text(_: Settings) -> Check:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.OperationalError:
        return Check("full text", "problem", "this SQLite lacks FTS5", "Use a Python built with SQLite FTS5.")
    finally:
        connection.close()
    return Check("full text", "ok", "SQLite FTS5 is there")


def _environment(_: Settings) -> Check:
    if unknown := misspelt_variables(os.environ):
        return Check("environment", "warning", "\n".join(unknown), "Correct the name, or unset it.")
    return Check("environment", "ok", "every MAINSTAY_ variable is a setting")


def _data_folder(settings: Settings) -> Check:
    folder = settings.data_dir
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        fix = "Give yourself write permission there, or set data_dir to another folder."
        return Check("data folder", "problem", f"{place} is no folder one can write to", fix)
    free_gb = shutil.disk_usage(place).free / 1e9
    state: Literal["ok", "warning"] = "ok" if free_gb > 2 else "warning"
    fix = "" if state == "ok" else "Free some space, or set data_dir to a larger disk."
    found = f"{folder} is writable" if place == folder else f"{folder} is made on first use"
    return Check("data folder", state, f"{found}, {free_gb:.1f} GB free", fix)


def _database(settings: Settings) -> Check:
    url = settings.database_url.reveal()
    if url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:///")).exists():
        return Check("database", "ok", "SQLite, made on first use")  # to connect would make it
    database = Database(url)
    try:
        current, head = revisions(database)
    finally:
        database.close()
    if current is None:
        return Check("database", "ok", f"{database.dialect}, empty; made on first use")
    if current != head:
        return Check(
            "database", "problem", f"schema {current}, this program needs {head}", "Run: mainstay migrate"
        )
    return Check("database", "ok", f"{database.dialect}, schema {current}")


def _models(settings: Settings) -> Check:
    names = {m.name for m in install.installed(settings.models_dir)}
    missing = [n for n in ("smollm2", "minilm") if n not in names]
    if missing:
        return Check(
            "models",
            "problem",
            f"missing {', '.join(missing)}",
            f"Run: mainstay models add {' '.join(missing)}",
        )
    return Check("models", "ok", f"{', '.join(sorted(names))} in {settings.models_dir}")


def _project(settings: Settings) -> Check:
    project = project_here()
    if project is None:
        return Check(
            "project", "warning", "no mainstay.yaml in this folder", "Make one: mainstay init my-bot"
        )
    if warnings := model_warnings(settings, project):
        return Check(
            "project", "warning", "\n".join(warnings), "Change `model:` in mainstay.yaml, or set the key."
        )
    return Check("project", "ok", f"{project.name}: apps {', '.join(project.apps)}")


def _port(settings: Settings) -> Check:
    found = running_server(settings)
    if found is not None:
        return Check("port", "ok", f"Mainstay answers on {found[0]}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return Check(
                "port",
                "warning",
                f"{settings.host}:{settings.port} is taken",
                "Choose another: mainstay up --port 0",
            )
    return Check("port", "ok", f"{settings.host}:{settings.port} is free")


CHECKS = (_python, _packages, _full_text, _environment, _data_folder, _database, _models, _project, _port)
