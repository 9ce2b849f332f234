"""API keys: virtual keys with a role, allowed models, document groups, owners and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.core.ids import new_id
from mainstay.core.secret import Secret, keyed_hash, random_token
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.limits import checked, limits_to_json
from mainstay.govern.permissions import ROLE_PERMISSIONS, refuse_escalation
from mainstay.govern.teams import require_owners
from mainstay.govern.types import UNLIMITED, ApiKey, Identity, Limits, Role

TOKEN_PREFIX = "ms-"  # noqa: S105  (what secret scanners look for, not a secret)
_PREFIX_SHOWN = len(TOKEN_PREFIX) + 6

HASHES_KEPT = 4096
TOKEN_CHARACTERS_MAX = 128
YEAR_9999_US = 253_370_764_800_000_000


def identity_of(key: ApiKey) -> Identity:
    """The caller that a key stands for."""
    return Identity(key.id, key.name, "key", key.role, key.groups)


class KeyStore:
    """Keys of one installation. A token is 256 random bits, so a fast keyed hash is enough to store it."""

    def __init__(self, database: Database, master_key: bytes, clock: Clock = now_us) -> None:
        self._db = database
        self._master = master_key
        self._hashes: dict[str, str] = {}
        self._clock = clock

    def hash_token(self, token: str) -> str:
        """What `ApiKey.token_hash` is for this token. Remembered for tokens lately seen, by the whole token."""
        found = self._hashes.get(token)
        if found is None:
            found = keyed_hash(self._master, f"api-key:{token}")
            if len(token) <= TOKEN_CHARACTERS_MAX:  # what is longer is no token of ours
                if len(self._hashes) >= HASHES_KEPT:
                    self._hashes.clear()
                self._hashes[token] = found
        return found

    def create(
        self,
        actor: Identity,
        name: str,
        *,
        role: Role = "viewer",
        models: Sequence[str] | None = None,
        groups: frozenset[str] = frozenset(),
        limits: Limits = UNLIMITED,
        user_id: str | None = None,
        team_id: str | None = None,
        project_id: str | None = None,
        expires_at_us: int | None = None,
    ) -> tuple[ApiKey, Secret]:
        """A new key and its token, which is shown this once.

        Raises InvalidInput, PermissionDenied; NotFound for an owner that is not there.
        """
        token, now = random_token(TOKEN_PREFIX), self._clock()
        key = ApiKey(
            id=new_id("key"),
            name=name.strip(),
            prefix=token[:_PREFIX_SHOWN],
            token_hash=self.hash_token(token),
            role=role,
            models=None if models is None else tuple(models),
            groups=groups,
            limits=checked(limits),
            created_at_us=now,
            expires_at_us=expires_at_us,
            revoked_at_us=None,
            user_id=user_id,
            team_id=team_id,
            project_id=project_id,
        )
        _check(key)
        refuse_escalation(actor, role)
        with self._db.begin() as connection:
            store.lock_audit(connection)  # nobody deletes its team or project meanwhile
            require_owners(connection, user_id, team_id, project_id)
            store.insert_key(connection, key, actor.id)
            append_audit(connection, actor, "key.created", key.id, _facts(key), at_us=now)
            bump_change_counter(connection)
        return key, Secret(token)

    def list(self) -> tuple[ApiKey, ...]:
        """All keys, oldest first, revoked and expired ones too."""
        with self._db.read() as connection:
            return store.select_keys(connection)

    def active(self) -> tuple[ApiKey, ...]:
        """Keys neither revoked nor expired now. Who holds on to them checks `expires_at_us` again."""
        column = store.api_keys.c
        unexpired = sa.or_(column.expires_at_us.is_(None), column.expires_at_us > self._clock())
        with self._db.read() as connection:
            return store.select_keys(connection, column.revoked_at_us.is_(None), unexpired)

    def assign(
        self,
        actor: Identity,
        key_id: str,
        *,
        user_id: str | None,
        team_id: str | None,
        project_id: str | None,
    ) -> ApiKey:
        """Say anew whom a key belongs to; None: to nobody. Raises NotFound, and Conflict for a revoked key."""
        owners = {"user_id": user_id, "team_id": team_id, "project_id": project_id}
        with self._db.begin() as connection:
            store.lock_audit(connection)
            found = store.select_keys(connection, store.api_keys.c.id == key_id)
            if not found:
                raise NotFound(f"There is no key {key_id!r}.", fix="List the keys to see their ids.")
            if found[0].revoked_at_us is not None:
                raise Conflict(f"The key {found[0].name!r} is revoked.", fix="Make a new one.")
            require_owners(connection, user_id, team_id, project_id)
            store.update_key(connection, key_id, **owners)
            append_audit(connection, actor, "key.assigned", key_id, owners, at_us=self._clock())
            bump_change_counter(connection)
        return replace(found[0], user_id=user_id, team_id=team_id, project_id=project_id)

    def revoke(self, actor: Identity, key_id: str) -> None:
        """Gateways refuse the key within a second. Revoking twice is no error; raises NotFound for no key."""
        now = self._clock()
        with self._db.begin() as connection:
            if store.mark_key_revoked(connection, key_id, now):
                append_audit(connection, actor, "key.revoked", key_id, {}, at_us=now)
                bump_change_counter(connection)
            elif not store.select_keys(connection, store.api_keys.c.id == key_id):
                raise NotFound(f"There is no key {key_id!r}.", fix="List the keys to see their ids.")


def _check(key: ApiKey) -> None:
    if not key.name:
        raise InvalidInput("A key needs a name.", fix="Say what it is for, e.g. `website`.")
    if key.role not in ROLE_PERMISSIONS:
        raise InvalidInput(f"{key.role!r} is no role.", fix=f"Use one of {', '.join(ROLE_PERMISSIONS)}.")
    if key.expires_at_us is not None and key.expires_at_us <= key.created_at_us:
        raise InvalidInput("The key would have expired already.", fix="Give a later time.")
    if key.expires_at_us is not None and key.expires_at_us > YEAR_9999_US:
        raise InvalidInput("This expiry is past the year 9999.", fix="Give microseconds since 1970.")


def _facts(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "prefix": key.prefix,
        "role": key.role,
        "models": None if key.models is None else list(key.models),
        "groups": sorted(key.groups),
        "limits": limits_to_json(key.limits),
        "user_id": key.user_id,
        "team_id": key.team_id,
        "project_id": key.project_id,
        "expires_at_us": key.expires_at_us,
    }
