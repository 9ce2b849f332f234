"""Users, keys, sessions, audit."""

from __future__ import annotations

revision = "0002_govern"
down_revision = "0001_core"


def upgrade() -> None:
    pass
