"""`mainstay key`: virtual API keys with a role, models, owners and limits."""

from __future__ import annotations

from typing import Annotated, Literal

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
    owner_id,
)
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.clock import US_PER_S, now_us, to_iso
from mainstay.govern import ApiKey, Directory, ScopeKind, limit_texts

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, assign, revoke.")

ProjectOption = Annotated[str | None, typer.Option("--project", help="The project it is made for.")]
TeamOption = Annotated[
    str | None, typer.Option("--team", help="The team it belongs to. Default: its project's.")
]
UserOption = Annotated[str | None, typer.Option("--user", help="The person it belongs to: e-mail address.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, e.g. 'web shop'.")],
    role: Annotated[Literal["viewer", "developer", "admin"], typer.Option(help="What it may do.")] = "viewer",
    model: Annotated[
        list[str] | None, typer.Option(help="App or model it may ask; repeat. Default: all.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Document group it may see; repeat.")] = None,
    project: ProjectOption = None,
    team: TeamOption = None,
    user: UserOption = None,
    budget: BudgetOption = None,
    soft_budget: SoftBudgetOption = None,
    window: WindowOption = "month",
    rpm: RequestsOption = None,
    tpm: TokensOption = None,
    concurrent: ConcurrentOption = None,
    days: Annotated[int | None, typer.Option(min=1, help="Expires after this many days.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make a key. Its token is shown once, here."""
    expires = None if days is None else now_us() + days * 86_400 * US_PER_S
    limits = limits_given(budget, soft_budget, window, rpm, tpm, concurrent)
    with local_stores(create=True) as stores:
        directory = stores.directory()
        key, token = stores.keys.create(
            actor(),
            name,
            role=role,
            models=tuple(model) if model else None,
            groups=frozenset(group or ()),
            limits=limits,
            user_id=owner_id(directory, "user", user),
            team_id=owner_id(directory, "team", team),
            project_id=owner_id(directory, "project", project),
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
        directory = stores.directory()
    keys = sorted(directory.keys.values(), key=lambda k: k.id, reverse=True)
    rows = [
        (
            k.id,
            k.name,
            k.prefix + "…",
            k.role,
            "all" if k.models is None else ", ".join(k.models),
            _owners(k, directory),
            ", ".join(limit_texts(k.limits)) or "none",
            "revoked" if k.revoked_at_us else "active",
            to_iso(k.created_at_us),
        )
        for k in keys
    ]
    columns = ["id", "name", "token", "role", "models", "of", "limits", "state", "created"]
    data = [dict(zip(columns, r, strict=True)) for r in rows]
    emit(data, json, lambda: table(columns, rows, "No keys yet: mainstay key create NAME"))


@app.command()
def assign(
    key: Annotated[str, typer.Argument(help="The key's name or id.")],
    project: ProjectOption = None,
    team: TeamOption = None,
    user: UserOption = None,
    json: JsonFlag = False,
) -> None:
    """Say anew whom a key belongs to; what is not named stays, '' takes it away."""
    with local_stores() as stores:
        directory = stores.directory()
        old = directory.keys[directory.find("key", key)]

        def new(kind: ScopeKind, text: str | None, before: str | None) -> str | None:
            return before if text is None else owner_id(directory, kind, text)

        assigned = stores.keys.assign(
            actor(),
            old.id,
            user_id=new("user", user, old.user_id),
            team_id=new("team", team, old.team_id),
            project_id=new("project", project, old.project_id),
        )
    data = {
        "id": assigned.id,
        "user_id": assigned.user_id,
        "team_id": assigned.team_id,
        "project_id": assigned.project_id,
    }
    told = _owners(assigned, directory) or "nobody"
    emit(data, json, lambda: say(f"The key {assigned.name!r} belongs to {told}."))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_…")], json: JsonFlag = False
) -> None:
    """Revoke a key; gateways refuse it within a second."""
    with local_stores() as stores:
        stores.keys.revoke(actor(), key_id)
    emit({"id": key_id, "state": "revoked"}, json, lambda: say(f"Revoked {key_id}."))


def _owners(key: ApiKey, directory: Directory) -> str | None:
    """`project shop, team support`; None for a key of nobody."""
    owners: tuple[tuple[ScopeKind, str | None], ...] = (
        ("project", key.project_id),
        ("team", key.team_id),
        ("user", key.user_id),
    )
    named = [f"{kind} {directory.name(kind, owner)}" for kind, owner in owners if owner is not None]
    return ", ".join(named) or None
