"""Sign-in: one-time links, sessions, and the CSRF token of a session. Only keyed hashes of tokens are stored."""

from __future__ import annotations

import hmac

import sqlalchemy as sa

from mainstay.core.clock import US_PER_S, Clock, now_us
from mainstay.core.database import Database
from mainstay.core.errors import InvalidInput, NotFound, Unauthenticated
from mainstay.core.secret import Secret, keyed_hash, random_token
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.types import Identity, User
from mainstay.govern.users import identity_of_user

_DAY_US = 86_400 * US_PER_S


class Sessions:
    """Sessions of one installation, `hours` long. No gateway serves by them, so none is told of a change."""

    def __init__(self, database: Database, master_key: bytes, hours: int, clock: Clock = now_us) -> None:
        self._db = database
        self._master = master_key
        self._hours = hours
        self._clock = clock

    def create_link(self, actor: Identity, user_id: str, minutes: int = 15) -> Secret:
        """A token that signs this user in once. Raises NotFound when there is no such enabled user."""
        if minutes < 1:
            raise InvalidInput("A sign-in link lasts at least a minute.")
        token, now = random_token("msl-"), self._clock()
        with self._db.begin() as connection:
            if not store.select_users(connection, *_enabled(user_id)):
                raise NotFound(f"There is no enabled user {user_id!r}.")
            expires = now + minutes * 60 * US_PER_S
            store.insert_link(connection, self._hash("link", token), user_id, now, expires)
            append_audit(connection, actor, "session.link_created", user_id, {"minutes": minutes}, at_us=now)
        return Secret(token)

    def redeem_link(self, token: str) -> Secret:
        """A session token for a link's token. Raises Unauthenticated for a used, expired or unknown link."""
        with self._db.begin() as connection:
            user_id = store.use_link(connection, self._hash("link", token), self._clock())
            users = store.select_users(connection, *_enabled(user_id)) if user_id is not None else ()
            if not users:
                raise Unauthenticated(
                    "This sign-in link does not work: it was used, has expired, or is not ours.",
                    fix="Ask an admin for a new one: `mainstay user link EMAIL`.",
                )
            return self._start(connection, users[0], "link")

    def start(self, user_id: str) -> Secret:
        """A session for a user whose password was checked. Raises NotFound when not enabled."""
        with self._db.begin() as connection:
            users = store.select_users(connection, *_enabled(user_id))
            if not users:
                raise NotFound(f"There is no enabled user {user_id!r}.")
            return self._start(connection, users[0], "password")

    def identity(self, token: str) -> Identity | None:
        """The user of a live session; None when it ended, expired, or the user was disabled."""
        with self._db.read() as connection:
            user = store.session_user(connection, self._hash("session", token), self._clock())
        return None if user is None else identity_of_user(user)

    def end(self, token: str) -> None:
        """Sign out. Ending a session that is over is no error."""
        with self._db.begin() as connection:
            user_id = store.mark_session_ended(connection, self._hash("session", token), self._clock())
            if user_id is not None:
                (user,) = store.select_users(connection, store.users.c.id == user_id)
                append_audit(
                    connection, identity_of_user(user), "session.ended", user_id, {}, at_us=self._clock()
                )

    def csrf_token(self, session_token: str) -> str:
        """Derived from the session, so nothing is stored and no other session's token fits."""
        return self._hash("csrf", session_token)

    def csrf_ok(self, session_token: str, given: str) -> bool:
        """Whether a form carries this session's token; compared in constant time."""
        return hmac.compare_digest(self.csrf_token(session_token).encode(), given.encode())

    def _start(self, connection: sa.Connection, user: User, how: str) -> Secret:
        token, now = random_token("mss-"), self._clock()
        store.delete_stale_sessions(connection, now - _DAY_US)
        expires = now + self._hours * 3600 * US_PER_S
        store.insert_session(connection, self._hash("session", token), user.id, now, expires)
        append_audit(connection, identity_of_user(user), "session.started", user.id, {"by": how}, at_us=now)
        return Secret(token)

    def _hash(self, purpose: str, token: str) -> str:
        return keyed_hash(self._master, f"{purpose}:{token}")


def _enabled(user_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (store.users.c.id == user_id, store.users.c.disabled_at_us.is_(None))
