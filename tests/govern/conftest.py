from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from mainstay.core.database import Database
from mainstay.core.ids import uuid7_hex


class FakeClock:
    """Microseconds since 1970 that move only when told."""

    def __init__(self, at_us: int = 1_800_000_000_000_000) -> None:
        self.at_us = at_us

    def __call__(self) -> int:
        return self.at_us

    def pass_minutes(self, minutes: int) -> None:
        self.at_us += minutes * 60_000_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database without any schema."""
    name = f"empty_{uuid7_hex()[:24]}"
    admin = sa.create_engine(Database(postgres_url).url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield admin.url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
