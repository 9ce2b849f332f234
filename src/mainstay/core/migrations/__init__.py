"""Schema migrations: `migrate` brings a database to the newest revision, `check` refuses a wrong one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mainstay.core.database import Database
from mainstay.core.errors import ConfigError


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["engine"] = database.engine
    return config


def migrate(database: Database) -> None:
    """Bring the schema to the newest revision. Runs each migration in a transaction."""
    command.upgrade(_config(database), "head")


def revisions(database: Database) -> tuple[str | None, str]:
    """(the database's revision or None when empty, the newest one this program knows)."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    head = ScriptDirectory.from_config(_config(database)).get_current_head()
    assert head is not None, "the package holds at least one migration"
    return current, head


def check(database: Database) -> None:
    """Raise ConfigError unless the schema is exactly the one this program was written for."""
    current, head = revisions(database)
    if current != head:
        raise ConfigError(
            f"The database is at schema {current or 'none'}, this program needs {head}.",
            fix="Run `mainstay migrate` with the newest installed version.",
        )
