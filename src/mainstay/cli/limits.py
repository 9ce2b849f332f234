"""`mainstay limits`: what keys, users, teams, projects and apps may use."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.context import actor, local_stores
from mainstay.cli.limit_options import (
    BudgetOption,
    ConcurrentOption,
    RequestsOption,
    SoftBudgetOption,
    TokensOption,
    WindowOption,
    limits_given,
    merged,
)
from mainstay.cli.output import JsonFlag, emit, say, table
from mainstay.core.errors import InvalidInput
from mainstay.govern import UNLIMITED, LimitScope, ScopeKind, budget_text, limit_texts

app = typer.Typer(
    no_args_is_help=True, help="Limits of keys, users, teams, projects and apps: set, show, clear."
)

Kind = Annotated[ScopeKind, typer.Argument(help="What is limited.")]
Name = Annotated[str, typer.Argument(help="Its name or id; of a user: the e-mail address.")]


@app.command("set")
def set_limits(
    kind: Kind,
    name: Name,
    budget: BudgetOption = None,
    soft_budget: SoftBudgetOption = None,
    window: WindowOption = "month",
    rpm: RequestsOption = None,
    tpm: TokensOption = None,
    concurrent: ConcurrentOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget the limits not named here.")] = False,
    json: JsonFlag = False,
) -> None:
    """Set limits; those not named stay as they are. Gateways follow within a second."""
    given = limits_given(budget, soft_budget, window, rpm, tpm, concurrent)
    if given.unlimited:
        raise InvalidInput(
            "No limit was given.",
            fix="Give one, e.g. --budget 5/day; to take all away: mainstay limits clear.",
        )
    with local_stores() as stores:
        directory = stores.directory()
        scope_id = directory.find(kind, name)
        old = UNLIMITED if replace else stores.limits.get(kind, scope_id)
        stored = stores.limits.set(actor(), kind, scope_id, merged(old, given))
    scope = LimitScope(kind, scope_id, directory.name(kind, scope_id), stored)
    emit(scope, json, lambda: say(f"The {kind} {scope.name!r} may use {', '.join(limit_texts(stored))}."))


@app.command()
def show(
    kind: Annotated[ScopeKind | None, typer.Argument(help="Only those of this kind.")] = None,
    name: Annotated[str | None, typer.Argument(help="Only this one: its name or id.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show every limit, or those of one kind or one thing."""
    with local_stores() as stores:
        directory = stores.directory()
        scopes = [s for s in directory.scopes(stores.limits.all()) if kind in (None, s.kind)]
        if kind is not None and name is not None:
            wanted = directory.find(kind, name)
            scopes = [s for s in scopes if s.id == wanted]
    rows = [
        (
            s.kind,
            s.name,
            _number(s.limits.requests_per_minute),
            _number(s.limits.tokens_per_minute),
            _number(s.limits.concurrent_requests),
            ", ".join(budget_text(b) for b in s.limits.budgets) or None,
        )
        for s in scopes
    ]
    columns = ["kind", "name", ">requests/min", ">tokens/min", ">at once", "budgets"]
    empty = "Nothing is limited here: mainstay limits set team NAME --budget 500/month"
    emit(scopes, json, lambda: table(columns, rows, empty))


@app.command()
def clear(kind: Kind, name: Name, json: JsonFlag = False) -> None:
    """Take all limits of one thing away."""
    with local_stores() as stores:
        directory = stores.directory()
        scope_id = directory.find(kind, name)
        had = stores.limits.clear(actor(), kind, scope_id)
    told = f"The {kind} {directory.name(kind, scope_id)!r} " + (
        "has no limits now." if had else "had no limits."
    )
    emit({"kind": kind, "id": scope_id, "cleared": had}, json, lambda: say(told))


def _number(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
