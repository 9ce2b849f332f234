"""`mainstay user`: people who sign in to the web UI."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from mainstay.cli.context import actor, local_stores
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.clock import to_iso
from mainstay.core.errors import NotFound
from mainstay.govern import User
from mainstay.services import Stores, sign_in_link

app = typer.Typer(no_args_is_help=True, help="People: create, list, change role, disable, sign-in links.")

Email = Annotated[str, typer.Argument(help="The person's e-mail address.")]


@app.command()
def create(
    email: Email,
    name: Annotated[str, typer.Option(help="Name shown in the audit log.")] = "",
    role: Annotated[
        Literal["viewer", "developer", "admin"], typer.Option(help="What they may do.")
    ] = "viewer",
    password_stdin: Annotated[bool, typer.Option(help="Read a password from standard input.")] = False,
    json: JsonFlag = False,
) -> None:
    """Add a person. Without a password they sign in with `mainstay user link`."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    with local_stores(create=True) as stores:
        user = stores.users.create(actor(), email, name or email.partition("@")[0], role, password)
    emit(
        user,
        json,
        lambda: say(f"Added {user.email} as {user.role}. Sign-in link: mainstay user link {user.email}"),
    )


@app.command("list")
def list_users(json: JsonFlag = False) -> None:
    """List people."""
    with local_stores() as stores:
        users = stores.users.list()
    rows = [
        (u.email, u.name, u.role, "disabled" if u.disabled_at_us else "active", to_iso(u.created_at_us))
        for u in users
    ]
    emit(
        users,
        json,
        lambda: table(
            ["e-mail", "name", "role", "state", "created"], rows, "Nobody yet: mainstay user create E-MAIL"
        ),
    )


@app.command()
def role(
    email: Email,
    new_role: Annotated[Literal["viewer", "developer", "admin"], typer.Argument(help="The new role.")],
    json: JsonFlag = False,
) -> None:
    """Change what a person may do."""
    with local_stores() as stores:
        stores.users.set_role(actor(), _find(stores, email).id, new_role)
    emit({"email": email, "role": new_role}, json, lambda: say(f"{email} is now {new_role}."))


@app.command()
def disable(email: Email, json: JsonFlag = False) -> None:
    """Stop a person from signing in; their sessions end."""
    with local_stores() as stores:
        stores.users.disable(actor(), _find(stores, email).id)
    emit({"email": email, "state": "disabled"}, json, lambda: say(f"{email} can no longer sign in."))


@app.command()
def link(email: Email, json: JsonFlag = False) -> None:
    """Print a sign-in link that works once, for 15 minutes."""
    with local_stores() as stores:
        url = sign_in_link(stores, actor(), _find(stores, email).id)
    emit({"email": email, "url": url}, json, lambda: out.print(url, markup=False))


def _find(stores: Stores, email: str) -> User:
    user = stores.users.by_email(email)
    if user is None:
        raise NotFound(f"Nobody has the e-mail address {email}.", fix="See: mainstay user list")
    return user
