"""Fixtures shared by all tests: real databases, and the folder of downloaded models."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from mainstay.core.config import default_models_dir, sqlite_url
from mainstay.core.database import Database
from mainstay.core.ids import uuid7_hex
from mainstay.core.migrations import migrate

# Machines are shared: how long one example takes says nothing.
settings.register_profile("mainstay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mainstay")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server: MAINSTAY_TEST_POSTGRES when set, else one started from its PyPI wheel.

    It gets a folder of its own: as root the server runs as another user, to whom pytest's folders are closed.
    """
    given = os.environ.get("MAINSTAY_TEST_POSTGRES")
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="mainstay-pg-"))
    folder.chmod(0o755)
    (folder / "run").mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder / "run"))
    import pgserver

    try:
        with pgserver.get_server(folder / "data", cleanup_mode="stop") as server:
            yield server.get_uri()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, made once and copied for each test."""
    path = tmp_path_factory.mktemp("template") / "mainstay.db"
    database = Database(sqlite_url(path))
    migrate(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture(scope="session")
def migrated_server(postgres_url: str) -> Iterator[tuple[sa.Engine, str]]:
    """(administrator's engine, name of a migrated database that serves as the template of each test's)."""
    name = f"template_{uuid7_hex()[:24]}"
    admin = sa.create_engine(Database(postgres_url).url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    database = Database(_named(admin, name))
    migrate(database)
    database.close()
    yield admin, name
    admin.dispose()


def _named(admin: sa.Engine, name: str) -> str:
    return admin.url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty migrated control database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_database")
        return
    admin, template = request.getfixturevalue("migrated_server")
    name = f"t_{uuid7_hex()[:24]}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    database = Database(_named(admin, name))
    yield database
    database.close()
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def sqlite_database(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """An empty migrated SQLite control database, for tests that are not about SQL."""
    path = tmp_path / "mainstay.db"
    shutil.copyfile(migrated_file, path)
    database = Database(sqlite_url(path))
    yield database
    database.close()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of local models that `mainstay models add` fills; set-up runs it before the tests."""
    return Path(os.environ.get("MAINSTAY_MODELS_DIR") or default_models_dir())
