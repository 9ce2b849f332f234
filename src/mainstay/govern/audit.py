"""The audit log: one row for each control change, chained by hash, its head signed.

Every row's hash covers the row and the hash before it, so an edit, a deletion or a swap breaks the chain at
that row. Rows cut off at the end are missed by a chain alone: the head row holds the count and last hash,
signed with the master key, and is written in the transaction of each append. A new row continues from the
signed head, never from the last row found, so that what was rewritten behind our back is not signed anew.
Not detected: a whole database put back to an older state; keep a copy of the head elsewhere against that.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from mainstay.core.clock import now_us
from mainstay.core.content import canonical_json, digest_json
from mainstay.core.database import Database
from mainstay.core.errors import Conflict
from mainstay.core.secret import keyed_hash
from mainstay.govern import store
from mainstay.govern.store import AuditRow, Head
from mainstay.govern.types import AuditEntry, AuditVerdict, Identity

_KEY_OPTION = "mainstay_audit_key"


def sign_audit_with(database: Database, master_key: bytes) -> None:
    """From now on this process signs the head at each append to `database`. Call once, where it is opened."""
    database.engine.update_execution_options(**{_KEY_OPTION: master_key})


def append_audit(
    connection: sa.Connection,
    actor: Identity,
    action: str,
    target: str,
    detail: Mapping[str, Any],
    *,
    at_us: int | None = None,
) -> AuditEntry:
    """Write one row in the transaction of the change it tells of. `detail` holds JSON values, and no secrets.

    Make the change first, then append: on PostgreSQL writers queue here until the transaction ends.
    """
    store.lock_audit(connection)
    head = store.read_head(connection)
    at_us = now_us() if at_us is None else at_us
    draft = AuditRow(0, at_us, actor.id, action, target, canonical_json(dict(detail)).decode(), "", "")
    row = _chained(head, draft)
    store.insert_audit(connection, row)
    store.write_head(connection, _next_head(head, row, _signing_key(connection)))
    return _entry(row)


class AuditLog:
    """Reading and checking the log of one database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def list(self, before: int | None = None, limit: int = 50) -> tuple[AuditEntry, ...]:
        """Newest first; for the next page pass the last sequence as `before`."""
        with self._db.read() as connection:
            return tuple(_entry(row) for row in store.audit_page(connection, before, limit))

    def verify(self) -> AuditVerdict:
        """Read the whole log and say whether it is what was written."""
        with self._db.read() as connection:
            store.freeze(connection)
            return _verify(connection, _signing_key(connection))

    def reseal(self, actor: Identity, reason: str) -> AuditEntry:
        """Sign a head that carries no valid signature, after a person has looked into why; writes a row.

        Raises Conflict when the chain itself is broken: a signature must not cover that.
        """
        with self._db.begin() as connection:
            store.lock_audit(connection)
            verdict, head = _verify(connection, None), store.read_head(connection)
            key = _signing_key(connection)
            if not verdict.ok or head is None or key is None:
                raise Conflict(f"The audit log cannot be sealed: {verdict.reason}")
            store.write_head(connection, Head(head.sequence, head.hash, _signature(key, head)))
            return append_audit(connection, actor, "audit.resealed", "audit", {"reason": reason})


def _chained(head: Head | None, draft: AuditRow) -> AuditRow:
    sequence, previous = (head.sequence + 1, head.hash) if head else (1, "")
    row = replace(draft, sequence=sequence, previous_hash=previous)
    return replace(row, hash=_hash(row))


def _hash(row: AuditRow) -> str:
    names = ("sequence", "at_us", "actor", "action", "target", "detail", "previous_hash")
    return digest_json({name: getattr(row, name) for name in names})


def _signature(key: bytes, head: Head) -> str:
    return keyed_hash(key, f"audit-head:{head.sequence}:{head.hash}")


def _signed_by(key: bytes, head: Head) -> bool:
    return head.signature is not None and hmac.compare_digest(head.signature, _signature(key, head))


def _next_head(head: Head | None, row: AuditRow, key: bytes | None) -> Head:
    unsigned = Head(row.sequence, row.hash, None)
    # A head that was tampered with stays unsigned: signing on top of it would make it good.
    if key is None or (head is not None and not _signed_by(key, head)):
        return unsigned
    return Head(row.sequence, row.hash, _signature(key, unsigned))


def _signing_key(connection: sa.Connection) -> bytes | None:
    key = connection.get_execution_options().get(_KEY_OPTION)
    assert key is None or isinstance(key, bytes)
    return key


def _verify(connection: sa.Connection, key: bytes | None) -> AuditVerdict:
    head = store.read_head(connection)
    rows, last_hash, fault = _walk(connection)
    fault = fault or _head_fault(head, rows, last_hash, key)
    if fault is not None:
        return AuditVerdict(False, rows, rows + 1, fault)
    return AuditVerdict(True, rows, None, "The chain is whole.", signed=key is not None)


def _walk(connection: sa.Connection) -> tuple[int, str, str | None]:
    """(good rows from the start, hash of the last of them, what is wrong with the next one or None)."""
    good, last_hash = 0, ""
    with closing(store.iterate_audit(connection)) as rows:
        for row in rows:
            fault = _fault(row, good + 1, last_hash)
            if fault is not None:
                return good, last_hash, fault
            good, last_hash = good + 1, row.hash
    return good, last_hash, None


def _fault(row: AuditRow, expected: int, previous: str) -> str | None:
    if row.sequence != expected:
        return f"Row {expected} is missing; the next one found is {row.sequence}."
    if row.previous_hash != previous:
        return f"Row {row.sequence} does not continue the row before it."
    if row.hash != _hash(row):
        return f"Row {row.sequence} is not what was written."
    return None


def _head_fault(head: Head | None, rows: int, last_hash: str, key: bytes | None) -> str | None:
    if head is None:
        return None if rows == 0 else "The signed head is missing."
    if head.sequence != rows:
        return f"The head counts {head.sequence} rows, the log holds {rows}: rows were cut off or added."
    if head.hash != last_hash:
        return "The head names another last row."
    if key is not None and not _signed_by(key, head):
        return "The head is not signed with this installation's master key."
    return None


def _entry(row: AuditRow) -> AuditEntry:
    detail = json.loads(row.detail)
    return AuditEntry(
        row.sequence, row.at_us, row.actor, row.action, row.target, detail, row.previous_hash, row.hash
    )
