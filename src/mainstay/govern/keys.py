"""API keys: virtual keys with a role, allowed models, document groups, a budget and a rate limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import InvalidInput, NotFound
from mainstay.core.ids import new_id
from mainstay.core.secret import Secret, keyed_hash, random_token
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.permissions import ROLE_PERMISSIONS, refuse_escalation
from mainstay.govern.types import ApiKey, Identity, Role

TOKEN_PREFIX = "ms-"  # noqa: S105  (what secret scanners look for, not a secret)
_PREFIX_SHOWN = len(TOKEN_PREFIX) + 6

REQUESTS_PER_MINUTE_MAX = 10_000_000
YEAR_9999_US = 253_370_764_800_000_000

BudgetWindow = Literal["day", "month", "total"]


def identity_of(key: ApiKey) -> Identity:
    """The caller that a key stands for."""
    return Identity(key.id, key.name, "key", key.role, key.groups)


class KeyStore:
    """Keys of one installation. A token is 256 random bits, so a fast keyed hash is enough to store it."""

    def __init__(self, database: Database, master_key: bytes, clock: Clock = now_us) -> None:
        self._db = database
        self._master = master_key
        self._clock = clock

    def hash_token(self, token: str) -> str:
        """What `ApiKey.token_hash` is for this token."""
        return keyed_hash(self._master, f"api-key:{token}")

    def create(
        self,
        actor: Identity,
        name: str,
        *,
        role: Role = "viewer",
        models: Sequence[str] | None = None,
        groups: frozenset[str] = frozenset(),
        budget_nusd: int | None = None,
        budget_window: BudgetWindow = "month",
        requests_per_minute: int | None = None,
        expires_at_us: int | None = None,
    ) -> tuple[ApiKey, Secret]:
        """A new key and its token, which is shown this once. Raises InvalidInput, PermissionDenied."""
        token, now = random_token(TOKEN_PREFIX), self._clock()
        key = ApiKey(
            id=new_id("key"),
            name=name.strip(),
            prefix=token[:_PREFIX_SHOWN],
            token_hash=self.hash_token(token),
            role=role,
            models=None if models is None else tuple(models),
            groups=groups,
            budget_nusd=budget_nusd,
            budget_window=budget_window,
            requests_per_minute=requests_per_minute,
            created_at_us=now,
            expires_at_us=expires_at_us,
            revoked_at_us=None,
        )
        _check(key)
        refuse_escalation(actor, role)
        with self._db.begin() as connection:
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
    if key.budget_window not in get_args(BudgetWindow):
        raise InvalidInput(f"{key.budget_window!r} is no budget window.", fix="Use day, month or total.")
    if key.budget_nusd is not None and key.budget_nusd < 0:
        raise InvalidInput("A budget cannot be below zero.")
    if key.requests_per_minute is not None and not 1 <= key.requests_per_minute <= REQUESTS_PER_MINUTE_MAX:
        raise InvalidInput(f"A rate limit is from 1 to {REQUESTS_PER_MINUTE_MAX:,} requests a minute.")
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
        "budget_nusd": key.budget_nusd,
        "budget_window": key.budget_window,
        "requests_per_minute": key.requests_per_minute,
        "expires_at_us": key.expires_at_us,
    }
