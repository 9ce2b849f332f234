"""The main job with its control database on a real PostgreSQL server."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from openai import OpenAI

from mainstay.cli.context import actor
from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.core.database import Database
from mainstay.core.errors import ConfigError
from mainstay.core.ids import uuid7_hex
from mainstay.delivery import load_project
from mainstay.services import open_database, publish

pytestmark = pytest.mark.model

QUESTION = "How many days of paid annual leave does a full-time employee have?"


@pytest.fixture
def empty_database(postgres_url: str) -> str:
    """The URL of a database without tables."""
    name = f"j_{uuid7_hex()[:24]}"
    admin = sa.create_engine(Database(postgres_url).url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)


def test_documents_become_cited_answers_releases_and_audit_rows(project: Path, empty_database: str) -> None:
    loaded = load_project(project)
    settings = load_settings({"port": 0, "database_url": empty_database})
    with RunningServer(settings, loaded) as server:
        publish(server.services, actor(), loaded)
        client = OpenAI(base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0)
        answer = client.chat.completions.create(model="bot", messages=[{"role": "user", "content": QUESTION}])
        client.close()
        assert "27 days" in (answer.choices[0].message.content or "")
        assert server.services.audit.verify().ok
        assert server.services.database.dialect == "postgresql"


def test_an_older_schema_on_a_server_stops_start_up_and_names_the_command(empty_database: str) -> None:
    settings = load_settings({"database_url": empty_database})
    open_database(settings).close()
    database = Database(empty_database)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001_core'"))
    database.close()
    with pytest.raises(ConfigError, match="mainstay migrate"):
        open_database(settings)
