"""Alembic's entry point: run pending migrations on the engine we were handed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from mainstay.core.database import metadata

engine: sa.Engine = context.config.attributes["engine"]

with engine.connect() as connection:
    if engine.dialect.name == "sqlite":
        # One process migrates at a time; the others wait here and then find nothing to do.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7205759403)"))
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    context.run_migrations()
    connection.commit()
