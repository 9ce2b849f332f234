from __future__ import annotations

import pytest

from mainstay.core.database import Database
from mainstay.core.errors import InvalidInput, PermissionDenied, Unauthenticated
from mainstay.govern import (
    ROLE_PERMISSIONS,
    SYSTEM,
    AuditLog,
    Identity,
    allowed,
    apply_retention,
    due,
    local_identity,
    require,
)

DAY_NS = 86_400 * 10**9


def test_each_role_may_do_all_that_the_one_below_may() -> None:
    assert ROLE_PERMISSIONS["viewer"] < ROLE_PERMISSIONS["developer"] < ROLE_PERMISSIONS["admin"]


def test_nobody_may_only_see_what_is_public() -> None:
    require(None, "public")
    with pytest.raises(Unauthenticated):
        require(None, "read")


def test_a_refusal_names_the_role_it_takes() -> None:
    viewer = Identity("user_1", "Ada", "user", "viewer")
    require(viewer, "read")
    with pytest.raises(PermissionDenied, match="It takes the role developer"):
        require(viewer, "write")
    assert not allowed("developer", "govern")


def test_who_holds_the_data_folder_is_admin() -> None:
    identity = local_identity()
    assert identity.id == f"cli:{identity.name}"
    require(identity, "govern")


def test_retention_deletes_what_is_due_and_writes_it_down(database: Database) -> None:
    asked: list[int] = []

    def prune(older_than_ns: int) -> int:
        asked.append(older_than_ns)
        return 3

    assert apply_retention(database, "traces", 30, prune, clock=lambda: 40 * DAY_NS // 1000) == 3
    assert asked == [10 * DAY_NS]
    entry = AuditLog(database).list()[0]
    assert (entry.actor, entry.action, entry.target) == (SYSTEM.id, "retention.applied", "traces")
    assert entry.detail == {"days": 30, "older_than": "1970-01-11T00:00:00.000Z", "deleted": 3}


def test_retention_with_nothing_due_writes_nothing(database: Database) -> None:
    assert apply_retention(database, "traces", 30, lambda _: 0) == 0
    assert AuditLog(database).list() == ()


def test_retention_keeps_at_least_a_day() -> None:
    with pytest.raises(InvalidInput):
        due(0, 0)
