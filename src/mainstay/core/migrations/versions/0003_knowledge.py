"""Documents, versions, chunks, snapshots."""

from __future__ import annotations

revision = "0003_knowledge"
down_revision = "0002_govern"


def upgrade() -> None:
    pass
