"""Writes the generated pages of docs/reference: commands, settings, routes, errors.

.venv/bin/python scripts/write_reference.py           write what has changed
.venv/bin/python scripts/write_reference.py --check   exit 1 and name the pages that are stale
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
SOURCE = ROOT / "src"
MARK = "<!-- Written by scripts/write_reference.py; do not edit. -->"


def pages() -> dict[Path, str]:
    """Every generated page by its path, as it should be now."""
    made: Mapping[str, Callable[[], str]] = {
        "commands.md": commands_page,
        "settings.md": settings_page,
        "routes.md": routes_page,
        "errors.md": errors_page,
    }
    return {FOLDER / name: make() for name, make in made.items()}


def stale() -> list[Path]:
    """The pages whose file is not what it should be."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]


def main() -> int:
    behind = stale()
    if "--check" in sys.argv[1:]:
        for path in behind:
            sys.stdout.write(f"stale: {path.relative_to(ROOT)}; run scripts/write_reference.py\n")
        return 1 if behind else 0
    made = pages()
    for path in behind:
        path.write_text(made[path], "utf-8")
        sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")
    return 0


def page(title: str, *blocks: str) -> str:
    return "\n\n".join([MARK, f"# {title}", *(block.strip() for block in blocks if block.strip())]) + "\n"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- commands ----------------------------------------------------------------------------------------------

COMMANDS_INTRO = """
`mainstay` works on the data folder of the project in the current folder (`.mainstay/` beside `mainstay.yaml`; the
setting `data_dir` moves it). Data goes to standard output, talk to standard error. Every command takes `--json`.

Exit codes: 0 done, 1 failed or a check was not met, 2 wrong use: an unknown option, a mistake in `mainstay.yaml`, a
bad setting. An error is one line that says what is wrong, and one that says how to mend it.
"""


def commands_page() -> str:
    import typer

    from mainstay.cli import main

    root = typer.main.get_command(main.app)
    panels: dict[str, list[str]] = {panel: [] for panel in (main.START, main.APPS, main.WATCH, main.ADMIN)}
    for name, command in _children(root):
        panel = str(getattr(command, "rich_help_panel", None) or "Other")
        panels.setdefault(panel, []).extend(_described(f"mainstay {name}", command))
    blocks = [block for panel, inner in panels.items() for block in (f"## {panel}", *inner)]
    return page("Commands", COMMANDS_INTRO, "`mainstay --version` prints the version.", *blocks)


def _children(command: Any) -> list[tuple[str, Any]]:
    return list(getattr(command, "commands", {}).items())


def _described(path: str, command: Any) -> list[str]:
    command = (
        command.load() if hasattr(command, "load") else command
    )  # as the help page does: when it is shown
    children = _children(command)
    if children:
        return [block for name, child in children for block in _described(f"{path} {name}", child)]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([path, *(_usage(a) for a in arguments), "[OPTIONS]" if options else ""]).strip()
    rows = [[f"`{_metavar(a)}`", _help(a)] for a in arguments]
    rows += [[_option_names(o), _help(o)] for o in options]
    return [
        f"### `{path}`",
        _one_line(command.help),
        f"```\n{usage}\n```",
        table(["", ""], rows) if rows else "",
    ]


def _metavar(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()).strip("[]")


def _usage(argument: Any) -> str:
    shown = _metavar(argument) + ("..." if argument.nargs == -1 else "")
    return shown if argument.required else f"[{shown}]"


def _option_names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if option.is_flag or option.is_bool_flag:
        return ", ".join([names, *(f"`{name}`" for name in option.secondary_opts)])
    return f"{names} {_value_name(option.type_descriptor.annotation)}"


def _value_name(annotation: Any) -> str:
    """What a value looks like: the choices, or the kind of value."""
    if get_origin(annotation) is list:
        return _value_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _help(parameter: Any) -> str:
    text = _one_line(getattr(parameter, "help", None))
    default = parameter.default
    is_shown = isinstance(default, str | int | float) and default not in ("", False)
    if parameter.param_type_name == "option" and is_shown:
        text += f" Default: `{parameter.opts[-1] if default is True else default}`."
    if getattr(parameter, "required", False) and parameter.param_type_name == "option":
        text += " Required."
    return text


def _one_line(text: str | None) -> str:
    return " ".join((text or "").replace("\b", "").split())


# --- settings ----------------------------------------------------------------------------------------------

SETTINGS_INTRO = """
One order holds for every setting: **flag > environment > file > default**. Flags are those of the command, such as
`mainstay up --port 9000`. In the environment a setting is its name in capitals after `MAINSTAY_`. The file is the
`settings:` section of `mainstay.yaml`. `mainstay config explain KEY` says a setting's value and where it came from;
`mainstay config list` shows all.
"""

SETTINGS_MORE = """
## Other environment variables

| variable | what it does |
|---|---|
| `OPENAI_API_KEY`, `GROQ_API_KEY`, … | makes a vendor's models known: [Choose a model](../how-to/choose-a-model.md) |
| `OLLAMA_HOST` | where Ollama answers, as Ollama itself reads it |
| `XDG_DATA_HOME` | base of the default `models_dir` |
"""

# Defaults that are computed where the program runs.
COMPUTED_DEFAULTS = {
    "database_url": "SQLite: `mainstay.db` in `data_dir`",
    "models_dir": "`~/.local/share/mainstay/models`",
    "public_url": "`http://host:port`",
    "otlp_export_url": "none: nothing is exported",
    "engine_threads": "the number of CPUs, at most 4",
    "engine_memory_mb": "half of the machine's or the container's memory",
}


def settings_page() -> str:
    from mainstay.core.config import SPECS

    rows = [
        [f"`{name}`", f"`MAINSTAY_{name.upper()}`", _default(name, spec.default), spec.help]
        for name, spec in SPECS.items()
    ]
    shown = table(["setting", "environment variable", "default", "what it is"], rows)
    return page("Settings", SETTINGS_INTRO, shown, SETTINGS_MORE)


def _default(name: str, value: object) -> str:
    if name in COMPUTED_DEFAULTS:
        return COMPUTED_DEFAULTS[name]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# --- routes ------------------------------------------------------------------------------------------------

ROUTES_INTRO = """
Send a key as `Authorization: Bearer ms-…`. A key or a person has a role, and a role allows permissions:

| role | permissions |
|---|---|
{roles}

`public` needs no credentials. Errors are JSON: [Errors](errors.md). `GET /api/openapi.json` describes the control API
for tools.
"""

GATEWAY_INTRO = """
The data plane speaks OpenAI's API. What an answer brings beyond it: [The response](response.md).
"""

GATEWAY_ROUTES = [
    ["POST", "/v1/chat/completions", "call", "Ask an app or a model; streams with `stream: true`."],
    ["POST", "/v1/embeddings", "call", "Vectors of texts; model `local/minilm`."],
    ["GET", "/v1/models", "call", "Every app, environment, release and model the key may use."],
    ["GET", "/v1/models/{id}", "call", "One of them."],
]


def routes_page() -> str:
    from mainstay.govern.permissions import ROLE_PERMISSIONS

    roles = "\n".join(
        f"| {role} | {', '.join(f'`{p}`' for p in ('read', 'call', 'write', 'govern') if p in granted)} |"
        for role, granted in ROLE_PERMISSIONS.items()
    )
    columns = ["method", "path", "permission", "what it does"]
    gateway = [[m, f"`{path}`", f"`{permission}`", text] for m, path, permission, text in GATEWAY_ROUTES]
    blocks = ["## Gateway", GATEWAY_INTRO, table(columns, gateway)]
    for group, rows in _control_routes().items():
        blocks += [f"## {group.capitalize()}", table(columns, rows)]
    return page("Routes", ROUTES_INTRO.format(roles=roles), *blocks)


def _control_routes() -> dict[str, list[list[str]]]:
    from fastapi.routing import APIRoute

    from mainstay.api import router
    from mainstay.api.access import declared_permission

    groups: dict[str, list[list[str]]] = {}
    for route in _leaves(router().routes):
        if not isinstance(route, APIRoute):
            continue
        text = _one_line((inspect.getdoc(route.endpoint) or _from_name(route.name)).split("\n\n")[0])
        for method in sorted(route.methods or ()):
            row = [method, f"`{route.path}`", f"`{declared_permission(route)}`", text]
            groups.setdefault(str((route.tags or ["other"])[0]), []).append(row)
    return groups


def _leaves(routes: Any) -> Iterator[Any]:
    """Routes of a router and of those it includes, which newer FastAPI versions keep apart."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _leaves(included.routes)


def _from_name(name: str) -> str:
    words = name.split("_")
    return " ".join([words[0].capitalize(), *words[1:]]) + "."


# --- errors ------------------------------------------------------------------------------------------------

ERRORS_INTRO = """
Decide by status and code, never by the text. `error_id` is in the response and in the server's log, so that one
finds the other. A class stands below the one it derives from.

The gateway answers in OpenAI's form, `{"error": {"message", "type", "param", "code", "mainstay": {"fix", "error_id",
"trace_id", …}}}`, with `x-should-retry` and, where a wait is known, `retry-after`. The control API answers
`{"error": {"message", "type", "code", "fix", "error_id", …}}`.
"""


# Of classes whose modules do not say it.
MEANINGS = {
    "ContentBlocked": "the app's policy refused the message; `guard` lists what was found",
    "UnsupportedMedia": "telemetry in another form than OTLP protobuf or JSON",
    "ModelNotAllowed": "the key may not ask for this name",
    "NotFound": "there is no such thing, or none that the caller may see",
    "ModelNotFound": "no app, route or model has this name",
    "MethodNotAllowed": "the path exists, but not for this HTTP method",
    "TooLarge": "the body is larger than `body_limit_mb`, or a file too large to ingest",
    "RateLimited": "the key's requests per minute are used up; `retry-after` says how long to wait",
    "UpstreamFailed": "the model stopped in the middle of its answer",
    "DownloadFailed": "a model could not be fetched",
    "EmbedderMissing": "the encoder is not installed: `mainstay models add minilm`",
    "IndexNotReady": "the index of this snapshot is not built: `mainstay apply`",
    "JournalUnavailable": "the budget journal cannot be written, so no budget can be kept",
    "ModelDamaged": "a model's folder is not whole: add the model again",
    "DeadlineExceeded": "the answer took longer than the release's `deadline_s`",
}


def errors_page() -> str:
    from mainstay.core.errors import MainstayError

    meanings = {**MEANINGS, **_meanings()}
    rows = list(_error_rows(MainstayError, 0, _error_classes(), meanings))
    return page("Errors", ERRORS_INTRO, table(["class", "status", "code", "meaning"], rows))


def _error_rows(
    cls: type[Any], depth: int, known: set[type[Any]], meanings: Mapping[str, str]
) -> Iterator[list[str]]:
    hidden = cls.__name__.startswith("_")
    if not hidden:
        indent = "&nbsp;" * 4 * depth
        own = inspect.cleandoc(cls.__dict__.get("__doc__") or "").split("\n\n")[0]
        text = meanings.get(cls.__name__) or _one_line(own)
        text = text[:1].upper() + text[1:].rstrip(".")
        yield [f"{indent}`{cls.__name__}`", str(cls.status), f"`{cls.code}`", text]
    children = sorted((c for c in cls.__subclasses__() if c in known), key=lambda c: (c.status, c.__name__))
    for child in children:
        yield from _error_rows(child, depth + (not hidden), known, meanings)


def _error_classes() -> set[type[Any]]:
    """Found in the source, so that the page does not depend on what this process has imported."""
    bases: dict[str, set[str]] = {}
    homes: dict[str, str] = {}
    for path, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {b.id for b in node.bases if isinstance(b, ast.Name)}
                homes[node.name] = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    found = {"MainstayError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return {getattr(importlib.import_module(homes[name]), name) for name in found}


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((SOURCE / "mainstay").rglob("*.py")):
        if "cli" not in path.parts and path.name != "__init__.py":
            yield path, ast.parse(path.read_text("utf-8"))


def _meanings() -> dict[str, str]:
    """The right-hand texts of the trees that the error modules draw in their docstrings."""
    meanings: dict[str, str] = {}
    for _, tree in _trees():
        for line in (ast.get_docstring(tree) or "").splitlines():
            parts = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split(maxsplit=3)
            if len(parts) == 4 and parts[1].isdigit() and parts[0].isidentifier():
                meanings[parts[0]] = parts[3].strip()
    return meanings


if __name__ == "__main__":
    sys.exit(main())
