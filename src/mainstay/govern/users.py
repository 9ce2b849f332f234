"""People who sign in. Passwords are hashed with Argon2id (RFC 9106); a user without one signs in by link."""

from __future__ import annotations

from typing import NoReturn

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from mainstay.core.ids import new_id
from mainstay.govern import store
from mainstay.govern.audit import append_audit
from mainstay.govern.permissions import ROLE_PERMISSIONS, refuse_escalation
from mainstay.govern.types import Identity, Role, User

PASSWORD_LENGTH_MIN = 12


def identity_of_user(user: User) -> Identity:
    """The caller that a signed-in user is."""
    return Identity(user.id, user.name, "user", user.role)


class UserStore:
    """Users of one installation, by id and by e-mail address (lower case)."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._db = database
        self._clock = clock
        self._hasher = PasswordHasher()
        # Checked when there is nothing to check, so that an unknown address takes as long as a known one.
        self._decoy = self._hasher.hash("no user has this password")

    def create(self, actor: Identity, email: str, name: str, role: Role, password: str | None) -> User:
        """Raises InvalidInput for a malformed address or short password, Conflict when the address is taken."""
        now = self._clock()
        user = User(new_id("user"), _address(email), name.strip() or email, role, now, None)
        _check_role(role)
        refuse_escalation(actor, role)
        password_hash = None if password is None else self._hash(password)
        with self._db.begin() as connection:
            store.lock_audit(connection)  # two people of one address must come one after the other
            if not store.insert_user(connection, user, password_hash):
                raise Conflict(
                    f"There is already a user {user.email}.", fix="Use another address, or change that user."
                )
            facts = {"email": user.email, "name": user.name, "role": role}
            append_audit(connection, actor, "user.created", user.id, facts, at_us=now)
            bump_change_counter(connection)
        return user

    def list(self) -> tuple[User, ...]:
        """All users, oldest first, disabled ones too."""
        with self._db.read() as connection:
            return store.select_users(connection)

    def get(self, user_id: str) -> User:
        """Raises NotFound."""
        with self._db.read() as connection:
            found = store.select_users(connection, store.users.c.id == user_id)
        return found[0] if found else _no_user(user_id)

    def by_email(self, email: str) -> User | None:
        with self._db.read() as connection:
            found = store.select_users(connection, store.users.c.email == email.strip().lower())
        return found[0] if found else None

    def set_role(self, actor: Identity, user_id: str, role: Role) -> User:
        """Takes effect at the user's next request. Raises NotFound, Conflict for the last admin."""
        _check_role(role)
        refuse_escalation(actor, role)
        self._change(actor, user_id, "user.role_changed", {"role": role}, role=role)
        return self.get(user_id)

    def set_password(self, actor: Identity, user_id: str, password: str) -> None:
        """Ends every session of the user. Raises NotFound, InvalidInput for a short password."""
        self._change(actor, user_id, "user.password_changed", {}, password_hash=self._hash(password))

    def disable(self, actor: Identity, user_id: str) -> User:
        """Ends every session of the user at once. Raises NotFound, Conflict for the last admin."""
        self._change(actor, user_id, "user.disabled", {}, disabled_at_us=self._clock())
        return self.get(user_id)

    def check_password(self, email: str, password: str) -> User:
        """The user, or Unauthenticated: the same error, after the same work, whatever was wrong."""
        with self._db.read() as connection:
            found = store.password_hash_of(connection, email.strip().lower())
        stored = found[1] if found is not None else None
        matches = self._verify(stored or self._decoy, password)
        if found is None or stored is None or not matches:
            raise Unauthenticated(
                "E-mail address or password is wrong.",
                fix="Try again, or ask an admin for a sign-in link.",
            )
        return found[0]

    def _change(
        self, actor: Identity, user_id: str, action: str, facts: dict[str, object], **values: object
    ) -> None:
        with self._db.begin() as connection:
            store.lock_audit(connection)  # two admins who demote each other must come one after the other
            before = store.select_users(connection, store.users.c.id == user_id)
            if not before:
                _no_user(user_id)
            store.update_user(connection, user_id, **values)
            if "password_hash" in values:
                store.end_sessions_of(connection, user_id, self._clock())
            if before[0].role == "admin" and not store.admin_exists(connection):
                raise Conflict("This is the last admin.", fix="Make another user admin first.")
            append_audit(connection, actor, action, user_id, facts, at_us=self._clock())
            bump_change_counter(connection)

    def _hash(self, password: str) -> str:
        if len(password) < PASSWORD_LENGTH_MIN:
            raise InvalidInput(
                f"The password is too short: it takes {PASSWORD_LENGTH_MIN} characters.",
                fix="A sentence works well.",
            )
        return self._hasher.hash(password)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _address(email: str) -> str:
    address = email.strip().lower()
    local, at, domain = address.partition("@")
    if not (local and at and domain) or "@" in domain or any(c.isspace() for c in address):
        raise InvalidInput(f"{email!r} is no e-mail address.", fix="Write it like ada@example.org.")
    return address


def _check_role(role: str) -> None:
    if role not in ROLE_PERMISSIONS:
        raise InvalidInput(f"{role!r} is no role.", fix=f"Use one of {', '.join(ROLE_PERMISSIONS)}.")


def _no_user(user_id: str) -> NoReturn:
    raise NotFound(f"There is no user {user_id!r}.", fix="List the users to see their ids.")
