"""Fixtures shared by all tests: real databases, and the folder of downloaded models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mainstay.core.config import default_models_dir
from mainstay.core.database import Database, sqlite_url
from mainstay.core.ids import uuid7_hex
from mainstay.core.migrations import migrate


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server: MAINSTAY_TEST_POSTGRES when set, else one started from its PyPI wheel."""
    given = os.environ.get("MAINSTAY_TEST_POSTGRES")
    if given:
        yield given
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pgserver

    with pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop") as server:
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty migrated control database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        database = Database(sqlite_url(tmp_path / "mainstay.db"))
        migrate(database)
        yield database
        database.close()
        return
    yield from _postgres_database(request.getfixturevalue("postgres_url"))


def _postgres_database(server_url: str) -> Iterator[Database]:
    name = f"t_{uuid7_hex()[:24]}"
    admin = sa.create_engine(Database(server_url).url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    database = Database(sa.make_url(server_url).set(database=name).render_as_string(hide_password=False))
    migrate(database)
    yield database
    database.close()
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """An empty migrated SQLite control database, for tests that are not about SQL."""
    database = Database(sqlite_url(tmp_path / "mainstay.db"))
    migrate(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of local models that `mainstay models add` fills; set-up runs it before the tests."""
    return Path(os.environ.get("MAINSTAY_MODELS_DIR") or default_models_dir())
