from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from mainstay.core.database import Database
from mainstay.core.errors import NotFound, Unauthenticated
from mainstay.core.secret import Secret
from mainstay.govern import SYSTEM, AuditLog, Sessions, User, UserStore

MASTER = b"s" * 32


@pytest.fixture
def ada(database: Database) -> User:
    return UserStore(database).create(SYSTEM, "ada@example.org", "Ada", "viewer", None)


@pytest.fixture
def sessions(database: Database, clock) -> Sessions:  # type: ignore[no-untyped-def]
    return Sessions(database, MASTER, hours=12, clock=clock)


def test_a_link_signs_in_once(sessions: Sessions, ada: User) -> None:
    link = sessions.create_link(SYSTEM, ada.id)
    session = sessions.redeem_link(link.reveal())
    identity = sessions.identity(session.reveal())
    assert identity is not None
    assert (identity.id, identity.role) == (ada.id, "viewer")
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(link.reveal())


def test_of_many_who_follow_a_link_at_once_one_gets_in(sessions: Sessions, ada: User) -> None:
    link = sessions.create_link(SYSTEM, ada.id).reveal()
    won: list[Secret] = []
    lost: list[Exception] = []

    def follow() -> None:
        try:
            won.append(sessions.redeem_link(link))
        except Unauthenticated as refused:
            lost.append(refused)

    callers = [threading.Thread(target=follow) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (len(won), len(lost)) == (1, 7)


def test_an_expired_link_opens_nothing(sessions: Sessions, ada: User, clock) -> None:  # type: ignore[no-untyped-def]
    link = sessions.create_link(SYSTEM, ada.id, minutes=15)
    clock.pass_minutes(15)
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(link.reveal())


def test_a_session_token_is_no_link_and_a_link_no_session(sessions: Sessions, ada: User) -> None:
    link, session = sessions.create_link(SYSTEM, ada.id), sessions.start(ada.id)
    assert sessions.identity(link.reveal()) is None
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(session.reveal())


def test_a_session_ends_by_sign_out_and_by_age(sessions: Sessions, ada: User, clock) -> None:  # type: ignore[no-untyped-def]
    one, two = sessions.start(ada.id).reveal(), sessions.start(ada.id).reveal()
    sessions.end(one)
    sessions.end(one)
    assert sessions.identity(one) is None
    assert sessions.identity(two) is not None
    clock.pass_minutes(12 * 60)
    assert sessions.identity(two) is None


def test_disabling_a_user_ends_their_sessions_and_links(
    database: Database, sessions: Sessions, ada: User
) -> None:
    session, link = sessions.start(ada.id), sessions.create_link(SYSTEM, ada.id)
    UserStore(database).disable(SYSTEM, ada.id)
    assert sessions.identity(session.reveal()) is None
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(link.reveal())
    with pytest.raises(NotFound):
        sessions.create_link(SYSTEM, ada.id)


def test_a_new_password_ends_every_session(database: Database, sessions: Sessions, ada: User) -> None:
    session = sessions.start(ada.id).reveal()
    UserStore(database).set_password(SYSTEM, ada.id, "another sentence entirely")
    assert sessions.identity(session) is None


def test_a_changed_role_counts_at_once(database: Database, sessions: Sessions, ada: User) -> None:
    session = sessions.start(ada.id).reveal()
    UserStore(database).set_role(SYSTEM, ada.id, "developer")
    identity = sessions.identity(session)
    assert identity is not None
    assert identity.role == "developer"


def test_a_csrf_token_fits_its_own_session_only(sessions: Sessions, ada: User) -> None:
    one, two = sessions.start(ada.id).reveal(), sessions.start(ada.id).reveal()
    assert sessions.csrf_ok(one, sessions.csrf_token(one))
    assert not sessions.csrf_ok(one, sessions.csrf_token(two))
    assert not sessions.csrf_ok(one, "ü")


def test_no_token_is_stored(database: Database, sessions: Sessions, ada: User) -> None:
    tokens = [sessions.create_link(SYSTEM, ada.id).reveal(), sessions.start(ada.id).reveal()]
    with database.read() as connection:
        rows = [
            str(row)
            for table in ("sign_in_links", "sessions", "audit_log")
            for row in connection.execute(sa.text(f"SELECT * FROM {table}"))
        ]
    assert rows
    assert not any(token in row for token in tokens for row in rows)


def test_sign_ins_are_in_the_audit_log(database: Database, sessions: Sessions, ada: User) -> None:
    sessions.end(sessions.redeem_link(sessions.create_link(SYSTEM, ada.id).reveal()).reveal())
    actions = [(entry.action, entry.actor) for entry in AuditLog(database).list(limit=3)]
    assert actions == [
        ("session.ended", ada.id),
        ("session.started", ada.id),
        ("session.link_created", "system"),
    ]


def test_long_expired_sessions_are_forgotten(
    database: Database, sessions: Sessions, ada: User, clock
) -> None:  # type: ignore[no-untyped-def]
    sessions.start(ada.id)
    clock.pass_minutes(60 * 24 * 3)
    sessions.start(ada.id)
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sessions")) == 1
