from __future__ import annotations

import pytest
import sqlalchemy as sa

from mainstay.core.database import Database, read_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from mainstay.core.secret import Secret
from mainstay.govern import (
    SYSTEM,
    AuditLog,
    Budget,
    Identity,
    KeyStore,
    Limits,
    ProjectStore,
    TeamStore,
    UserStore,
    identity_of,
)

MASTER = b"k" * 32


@pytest.fixture
def keys(database: Database, clock) -> KeyStore:  # type: ignore[no-untyped-def]
    return KeyStore(database, MASTER, clock)


def test_a_new_key_is_active_and_found_by_the_hash_of_its_token(keys: KeyStore) -> None:
    key, token = keys.create(SYSTEM, "website", models=["handbook-bot"], groups=frozenset({"staff", "ops"}))
    assert token.reveal().startswith("ms-")
    assert token.reveal().startswith(key.prefix)
    assert keys.active() == (key,)
    assert keys.hash_token(token.reveal()) == key.token_hash
    assert identity_of(key) == Identity(key.id, "website", "key", "viewer", frozenset({"staff", "ops"}))


def test_the_token_is_nowhere_in_the_database(database: Database, keys: KeyStore) -> None:
    _, token = keys.create(SYSTEM, "website")
    with database.read() as connection:
        rows = [
            str(row)
            for table in ("api_keys", "audit_log")
            for row in connection.execute(sa.text(f"SELECT * FROM {table}"))
        ]
    assert rows
    assert not any(token.reveal() in row for row in rows)


def test_another_master_key_gives_other_hashes(database: Database, keys: KeyStore) -> None:
    assert keys.hash_token("ms-x") != KeyStore(database, b"o" * 32).hash_token("ms-x")


def test_a_revoked_key_is_not_active_and_stays_listed(keys: KeyStore) -> None:
    key, _ = keys.create(SYSTEM, "website")
    keys.revoke(SYSTEM, key.id)
    keys.revoke(SYSTEM, key.id)
    assert keys.active() == ()
    assert keys.list()[0].revoked_at_us is not None


def test_revoking_an_unknown_key_is_not_found(keys: KeyStore) -> None:
    with pytest.raises(NotFound):
        keys.revoke(SYSTEM, "key_none")


def test_an_expired_key_is_not_active(keys: KeyStore, clock) -> None:  # type: ignore[no-untyped-def]
    keys.create(SYSTEM, "short", expires_at_us=clock() + 60_000_000)
    assert len(keys.active()) == 1
    clock.pass_minutes(1)
    assert keys.active() == ()


def test_each_change_is_audited_and_told_to_gateways(database: Database, keys: KeyStore) -> None:
    key, _ = keys.create(SYSTEM, "website", limits=Limits(budgets=(Budget(5, "day"),)))
    keys.revoke(SYSTEM, key.id)
    keys.revoke(SYSTEM, key.id)
    entries = AuditLog(database).list()
    assert [(e.action, e.target) for e in entries] == [("key.revoked", key.id), ("key.created", key.id)]
    assert entries[1].detail["limits"] == {"budgets": [{"limit_nusd": 5, "window": "day", "hard": True}]}
    assert read_change_counter(database) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " "},
        {"name": "x", "role": "owner"},
        {"name": "x", "limits": Limits(budgets=(Budget(5, "year"),))},  # type: ignore[arg-type]
        {"name": "x", "limits": Limits(budgets=(Budget(-1, "day"),))},
        {"name": "x", "limits": Limits(requests_per_minute=0)},
        {"name": "x", "expires_at_us": 10**30},
        {"name": "x", "expires_at_us": 1},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(keys: KeyStore, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        keys.create(SYSTEM, **wrong)  # type: ignore[arg-type]
    assert keys.list() == ()


def test_nobody_makes_a_key_stronger_than_themselves(keys: KeyStore) -> None:
    developer = Identity("user_1", "Ada", "user", "developer")
    with pytest.raises(PermissionDenied):
        keys.create(developer, "sneaky", role="admin")


def test_a_token_does_not_print(keys: KeyStore) -> None:
    _, token = keys.create(SYSTEM, "website")
    assert isinstance(token, Secret)
    assert token.reveal() not in f"{token} {token!r}"


def test_a_key_keeps_its_limits_and_its_owners(database: Database, keys: KeyStore) -> None:
    team = TeamStore(database).create(SYSTEM, "support")
    project = ProjectStore(database).create(SYSTEM, "shop", team.id)
    ada = UserStore(database).create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    limits = Limits(60, 100_000, 8, (Budget(5 * 10**9, "day"), Budget(4 * 10**9, "day", hard=False)))

    key, _ = keys.create(SYSTEM, "web", limits=limits, user_id=ada.id, team_id=team.id, project_id=project.id)

    assert keys.list() == keys.active() == (key,)
    assert key.limits == limits
    assert (key.user_id, key.team_id, key.project_id) == (ada.id, team.id, project.id)


@pytest.mark.parametrize("owner", ["user_id", "team_id", "project_id"])
def test_a_key_of_nobody_we_know_is_not_made(keys: KeyStore, owner: str) -> None:
    with pytest.raises(NotFound):
        keys.create(SYSTEM, "web", **{owner: f"{owner[:-3]}_none"})  # type: ignore[arg-type]
    assert keys.list() == ()


def test_a_key_of_somebody_who_left_is_not_made(database: Database, keys: KeyStore) -> None:
    users = UserStore(database)
    ada = users.create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    users.disable(SYSTEM, ada.id)
    with pytest.raises(Conflict, match="disabled"):
        keys.create(SYSTEM, "web", user_id=ada.id)


def test_a_key_moves_to_another_team_and_the_log_says_so(database: Database, keys: KeyStore) -> None:
    team = TeamStore(database).create(SYSTEM, "support")
    key, _ = keys.create(SYSTEM, "web")

    moved = keys.assign(SYSTEM, key.id, user_id=None, team_id=team.id, project_id=None)

    assert keys.list() == (moved,)
    assert moved.team_id == team.id
    assert AuditLog(database).list()[0].action == "key.assigned"
    with pytest.raises(NotFound):
        keys.assign(SYSTEM, "key_none", user_id=None, team_id=team.id, project_id=None)
    keys.revoke(SYSTEM, key.id)
    with pytest.raises(Conflict):
        keys.assign(SYSTEM, key.id, user_id=None, team_id=None, project_id=None)
