"""Retention: what is older than the policy says is deleted, and the deletion is written down."""

from __future__ import annotations

from collections.abc import Callable

from mainstay.core.clock import Clock, now_us, to_iso
from mainstay.core.database import Database
from mainstay.core.errors import InvalidInput
from mainstay.govern.audit import append_audit
from mainstay.govern.permissions import SYSTEM
from mainstay.govern.types import Identity

_DAY_US = 86_400_000_000

Pruner = Callable[[int], int]
"""Deletes what is older than these nanoseconds since 1970; returns how many things it deleted."""


def due(now_us: int, days: int) -> int:
    """The cut in nanoseconds since 1970: what is older is due for deletion. Raises InvalidInput below a day."""
    if days < 1:
        raise InvalidInput("Retention is at least one day.", fix="Set trace_retention_days to 1 or more.")
    return (now_us - days * _DAY_US) * 1_000


def apply_retention(
    database: Database,
    what: str,
    days: int,
    prune: Pruner,
    *,
    actor: Identity = SYSTEM,
    clock: Clock = now_us,
) -> int:
    """Delete what is due, then write one audit row, unless there was nothing. Returns how many were deleted.

    The deletion comes first: it is safe to repeat, and the row must not claim what did not happen.
    """
    now = clock()
    cut_ns = due(now, days)
    deleted = prune(cut_ns)
    if deleted > 0:
        facts = {"days": days, "older_than": to_iso(cut_ns // 1_000), "deleted": deleted}
        with database.begin() as connection:
            append_audit(connection, actor, "retention.applied", what, facts, at_us=now)
    return deleted
