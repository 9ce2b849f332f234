"""The control database: SQLite by default, PostgreSQL by URL; SQLAlchemy Core, one query text for both.

Each layer declares its tables on `metadata` in its `store.py`; Alembic migrations in
`core/migrations/versions` create them. Writes happen in `begin()`, one transaction an action.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mainstay.core.errors import ConfigError, MissingExtra

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

change_counter = sa.Table(
    "change_counter",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


class Database:
    """A pool of connections to one control database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = _driver_url(url)
        self.engine = _engine(self.url)
        self.dialect: str = self.engine.dialect.name
        if self.dialect == "sqlite":
            sa.event.listen(self.engine, "connect", _tune_sqlite)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A write transaction: commits on leaving, rolls back on an exception.

        On SQLite it takes the write lock at once, so that a read in it cannot go stale before its write.
        """
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with connection.begin() if not connection.in_transaction() else connection.get_transaction():  # type: ignore[union-attr]
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading: all its queries see one state."""
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
            connection.rollback()

    def upsert(self, table: sa.Table) -> Any:
        """`INSERT` that takes `.on_conflict_do_update/_nothing`, in this database's dialect."""
        insert = sqlite.insert if self.dialect == "sqlite" else postgresql.insert
        return insert(table)

    def close(self) -> None:
        self.engine.dispose()


def bump_change_counter(connection: sa.Connection) -> None:
    """Tell every gateway that control state changed; call it in the change's own transaction."""
    updated = connection.execute(
        change_counter.update()
        .where(change_counter.c.name == "control")
        .values(value=change_counter.c.value + 1)
    )
    if updated.rowcount == 0:
        connection.execute(change_counter.insert().values(name="control", value=1))


def read_change_counter(database: Database) -> int:
    with database.read() as connection:
        value = connection.scalar(sa.select(change_counter.c.value).where(change_counter.c.name == "control"))
    return int(value or 0)


def _engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url, **_pool_options(url))
    except ModuleNotFoundError as error:
        raise MissingExtra("A control database on PostgreSQL", "postgres") from error


def _driver_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(
            f"{url!r} is no database URL.",
            fix="Use sqlite:///path/to/file.db or postgresql://user@host/name.",
        )
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme in ("sqlite", "postgresql+psycopg"):
        return url
    raise ConfigError(f"Mainstay does not speak to {scheme!r} databases.", fix="Use SQLite or PostgreSQL.")


def _pool_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        # We open transactions ourselves (BEGIN IMMEDIATE), so the driver must not.
        return {
            "poolclass": sa.pool.QueuePool,
            "pool_size": 8,
            "max_overflow": 24,
            "connect_args": {"timeout": 30, "check_same_thread": False, "isolation_level": None},
        }
    return {"pool_pre_ping": True, "pool_size": 8, "max_overflow": 24}


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
