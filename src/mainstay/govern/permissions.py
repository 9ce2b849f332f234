"""Who may do what: the one table of roles, and the one function that refuses."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Final

from mainstay.core.errors import PermissionDenied, Unauthenticated
from mainstay.govern.types import Identity, Permission, Role

ROLE_PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    "viewer": frozenset({"public", "read", "call"}),
    "developer": frozenset({"public", "read", "call", "write"}),
    "admin": frozenset({"public", "read", "call", "write", "govern"}),
}

SYSTEM: Final = Identity("system", "Mainstay", "system", "admin")
"""Mainstay itself, for what it does on schedule."""


def local_identity() -> Identity:
    """Whoever runs the command on the data folder: who can read its files may do everything."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry in the password database, as in some containers
        name = "unknown"
    return Identity(f"cli:{name}", name, "local", "admin")


def allowed(role: Role, permission: Permission) -> bool:
    return permission in ROLE_PERMISSIONS[role]


def require(identity: Identity | None, permission: Permission) -> None:
    """Return, or raise Unauthenticated (nobody we know) or PermissionDenied (known, but not allowed)."""
    if permission == "public":
        return
    if identity is None:
        raise Unauthenticated(
            "No valid credentials were given.",
            fix="Sign in, or send an API key as `Authorization: Bearer ms-…`.",
        )
    if not allowed(identity.role, permission):
        raise PermissionDenied(
            f"{identity.name} has the role {identity.role}, which does not allow {permission!r}.",
            fix=f"It takes the role {_lowest_role(permission)}; an admin can give it.",
        )


def refuse_escalation(actor: Identity, role: Role) -> None:
    """Nobody hands out a role that allows more than their own."""
    if not ROLE_PERMISSIONS[role] <= ROLE_PERMISSIONS[actor.role]:
        raise PermissionDenied(f"{actor.name} has the role {actor.role} and cannot give the role {role}.")


def _lowest_role(permission: Permission) -> Role:
    return next(role for role, granted in ROLE_PERMISSIONS.items() if permission in granted)
