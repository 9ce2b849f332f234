from __future__ import annotations

import pytest

from mainstay.core.database import Database
from mainstay.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unauthenticated
from mainstay.govern import SYSTEM, AuditLog, UserStore, identity_of_user

PASSWORD = "a sentence works well"


@pytest.fixture
def users(database: Database) -> UserStore:
    return UserStore(database)


def test_a_user_signs_in_with_their_password_and_any_case_of_the_address(users: UserStore) -> None:
    ada = users.create(SYSTEM, "Ada@Example.org", "Ada", "admin", PASSWORD)
    assert users.check_password("ADA@example.org ", PASSWORD) == ada
    assert users.by_email("ada@EXAMPLE.org") == users.get(ada.id) == ada


def test_every_wrong_sign_in_gives_the_same_error(users: UserStore) -> None:
    users.create(SYSTEM, "ada@example.org", "Ada", "admin", PASSWORD)
    users.create(SYSTEM, "link@example.org", "Link", "viewer", None)
    gone = users.create(SYSTEM, "gone@example.org", "Gone", "viewer", PASSWORD)
    users.disable(SYSTEM, gone.id)
    messages = set()
    for email in ("ada@example.org", "link@example.org", "gone@example.org", "nobody@example.org"):
        with pytest.raises(Unauthenticated) as refused:
            users.check_password(email, PASSWORD if email.startswith("gone") else "something else")
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_the_decoy_password_opens_nothing(users: UserStore) -> None:
    users.create(SYSTEM, "link@example.org", "Link", "viewer", None)
    for email in ("link@example.org", "nobody@example.org"):
        with pytest.raises(Unauthenticated):
            users.check_password(email, "no user has this password")


def test_an_address_is_taken_once(users: UserStore) -> None:
    users.create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    with pytest.raises(Conflict):
        users.create(SYSTEM, "ADA@example.org", "Other", "viewer", None)


@pytest.mark.parametrize("email", ["ada", "@example.org", "ada@", "a b@example.org", "a@b@c"])
def test_a_malformed_address_is_refused(users: UserStore, email: str) -> None:
    with pytest.raises(InvalidInput):
        users.create(SYSTEM, email, "Ada", "viewer", None)


def test_a_short_password_is_refused(users: UserStore) -> None:
    with pytest.raises(InvalidInput):
        users.create(SYSTEM, "ada@example.org", "Ada", "viewer", "short")


def test_a_role_changes_and_the_change_is_audited(database: Database, users: UserStore) -> None:
    users.create(SYSTEM, "boss@example.org", "Boss", "admin", None)
    ada = users.create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    assert users.set_role(SYSTEM, ada.id, "developer").role == "developer"
    assert AuditLog(database).list(limit=1)[0].detail == {"role": "developer"}


def test_the_last_admin_stays_one(users: UserStore) -> None:
    boss = users.create(SYSTEM, "boss@example.org", "Boss", "admin", None)
    with pytest.raises(Conflict):
        users.disable(SYSTEM, boss.id)
    with pytest.raises(Conflict):
        users.set_role(SYSTEM, boss.id, "viewer")
    assert users.get(boss.id) == boss


def test_a_viewer_can_be_disabled_where_no_user_is_admin(users: UserStore) -> None:
    ada = users.create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    assert users.disable(SYSTEM, ada.id).disabled_at_us is not None


def test_nobody_gives_a_role_above_their_own(users: UserStore) -> None:
    ada = users.create(SYSTEM, "ada@example.org", "Ada", "developer", None)
    with pytest.raises(PermissionDenied):
        users.set_role(identity_of_user(ada), ada.id, "admin")


def test_a_changed_password_replaces_the_old_one(users: UserStore) -> None:
    ada = users.create(SYSTEM, "ada@example.org", "Ada", "viewer", PASSWORD)
    users.set_password(SYSTEM, ada.id, "another sentence entirely")
    assert users.check_password("ada@example.org", "another sentence entirely") == ada
    with pytest.raises(Unauthenticated):
        users.check_password("ada@example.org", PASSWORD)


def test_an_unknown_user_is_not_found(users: UserStore) -> None:
    for act in (lambda: users.get("user_x"), lambda: users.disable(SYSTEM, "user_x")):
        with pytest.raises(NotFound):
            act()


def test_nobody_makes_a_user_with_a_higher_role_than_their_own(users: UserStore) -> None:
    developer = identity_of_user(users.create(SYSTEM, "dev@example.org", "Dev", "developer", None))
    with pytest.raises(PermissionDenied):
        users.create(developer, "new@example.org", "New", "admin", None)
    assert users.by_email("new@example.org") is None
