"""`mainstay migrate`: the control database's schema."""

from __future__ import annotations

from mainstay.cli.output import JsonFlag, emit, say
from mainstay.core.config import load_settings
from mainstay.core.database import Database
from mainstay.core.migrations import migrate as migrate_database
from mainstay.core.migrations import revisions


def migrate(json: JsonFlag = False) -> None:
    """Bring the control database to the schema this version needs."""
    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url.reveal())
    before, head = revisions(database)
    migrate_database(database)
    database.close()
    emit(
        {"before": before, "now": head},
        json,
        lambda: say(f"Already at {head}." if before == head else f"{before or 'empty'} → {head}"),
    )
