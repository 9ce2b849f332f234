"""Schema migrations: `migrate` brings a database to the newest revision, `check` refuses a wrong one."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from mainstay.core.database import Database
from mainstay.core.errors import ConfigError

_FOLDER = Path(__file__).parent


def migrate(database: Database) -> None:
    """Bring the schema to the newest revision. Runs each migration in a transaction."""
    # Late: a third of a second, which commands on a database that is up to date are spared.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["engine"] = database.engine
    command.upgrade(config, "head")


def revisions(database: Database) -> tuple[str | None, str]:
    """(the database's revision or None when empty, the newest one this program knows).

    Migrations form one line, and a revision is called as its file: the last file is the newest.
    """
    with database.engine.connect() as connection:
        known = sa.inspect(connection).has_table("alembic_version")
        query = sa.text("SELECT version_num FROM alembic_version")
        current = connection.scalar(query) if known else None
    return current, max(path.stem for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def check(database: Database) -> None:
    """Raise ConfigError unless the schema is exactly the one this program was written for."""
    current, head = revisions(database)
    if current != head:
        raise ConfigError(
            f"The database is at schema {current or 'none'}, this program needs {head}.",
            fix="Run `mainstay migrate` with the newest installed version.",
        )
