"""`mainstay key`: virtual API keys with a role, models and a budget."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mainstay.cli.context import actor, local_stores
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.clock import US_PER_S, now_us, to_iso
from mainstay.core.money import nusd_from_usd, show_usd

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, e.g. 'web shop'.")],
    role: Annotated[Literal["viewer", "developer", "admin"], typer.Option(help="What it may do.")] = "viewer",
    model: Annotated[
        list[str] | None, typer.Option(help="App or model it may ask; repeat. Default: all.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Document group it may see; repeat.")] = None,
    budget: Annotated[str | None, typer.Option(help="Hard limit in dollars, e.g. 25.")] = None,
    window: Annotated[
        Literal["day", "month", "total"], typer.Option(help="What the budget covers.")
    ] = "month",
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Expires after this many days.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make a key. Its token is shown once, here."""
    expires = None if days is None else now_us() + days * 86_400 * US_PER_S
    with local_stores(create=True) as stores:
        key, token = stores.keys.create(
            actor(),
            name,
            role=role,
            models=tuple(model) if model else None,
            groups=frozenset(group or ()),
            budget_nusd=None if budget is None else nusd_from_usd(budget),
            budget_window=window,
            requests_per_minute=rpm,
            expires_at_us=expires,
        )
    data = {"id": key.id, "name": key.name, "token": token.reveal()}

    def render() -> None:
        out.print(token.reveal(), markup=False)
        say(f"This is key {key.id}. The token is not shown again.")

    emit(data, json, render)


@app.command("list")
def list_keys(json: JsonFlag = False) -> None:
    """List keys, newest first."""
    with local_stores() as stores:
        keys = stores.keys.list()[::-1]
    rows = [
        (
            k.id,
            k.name,
            k.prefix + "…",
            k.role,
            "all" if k.models is None else ", ".join(k.models),
            "none" if k.budget_nusd is None else f"{show_usd(k.budget_nusd)} a {k.budget_window}",
            "revoked" if k.revoked_at_us else "active",
            to_iso(k.created_at_us),
        )
        for k in keys
    ]
    columns = ["id", "name", "token", "role", "models", ">budget", "state", "created"]
    data = [dict(zip([c.removeprefix(">") for c in columns], r, strict=True)) for r in rows]
    emit(data, json, lambda: table(columns, rows, "No keys yet: mainstay key create NAME"))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_…")], json: JsonFlag = False
) -> None:
    """Revoke a key; gateways refuse it within a second."""
    with local_stores() as stores:
        stores.keys.revoke(actor(), key_id)
    emit({"id": key_id, "state": "revoked"}, json, lambda: say(f"Revoked {key_id}."))
