"""Artifacts, releases, environments."""

from __future__ import annotations

revision = "0005_delivery"
down_revision = "0004_evaluate"


def upgrade() -> None:
    pass
