"""Datasets, runs, scores."""

from __future__ import annotations

revision = "0004_evaluate"
down_revision = "0003_knowledge"


def upgrade() -> None:
    pass
