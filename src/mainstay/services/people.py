"""How people get in without a password: links that work once, and the administrator of this installation."""

from __future__ import annotations

from mainstay.govern import Identity, User, local_identity
from mainstay.services.folder import running_server
from mainstay.services.stores import Stores

LOCAL_ADMIN = "admin@localhost"


def sign_in_link(stores: Stores, actor: Identity, user_id: str, base_url: str | None = None) -> str:
    """An address that signs this user in once, within 15 minutes.

    It leads to `public_url`, else to `base_url`, else to the running server, else to where one would listen.
    """
    settings = stores.settings
    base = settings.public_url or base_url or _running(stores) or f"http://{settings.host}:{settings.port}"
    return f"{base}/sign-in/link/{stores.sessions.create_link(actor, user_id).reveal()}"


def _running(stores: Stores) -> str | None:
    found = running_server(stores.settings)
    return found[0] if found else None


def local_admin(stores: Stores) -> User:
    """The administrator of this installation, made on first use; signs in by link only."""
    found = stores.users.by_email(LOCAL_ADMIN)
    return found or stores.users.create(local_identity(), LOCAL_ADMIN, "Local administrator", "admin", None)
