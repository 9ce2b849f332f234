"""The control database and what is kept in it: all that most administrators' commands need."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.core.config import Settings
from mainstay.core.database import Database
from mainstay.core.migrations import check, migrate, revisions
from mainstay.core.secret import load_or_create_master_key
from mainstay.govern import (
    AuditLog,
    Directory,
    KeyStore,
    LimitStore,
    ProjectStore,
    Sessions,
    TeamStore,
    UserStore,
    sign_audit_with,
)


@dataclass(frozen=True)
class Stores:
    """Cheap to open: no models, no indexes, no gateway. `Services` is these and everything above them."""

    settings: Settings
    database: Database
    keys: KeyStore
    users: UserStore
    teams: TeamStore
    projects: ProjectStore
    limits: LimitStore
    sessions: Sessions
    audit: AuditLog

    def directory(self) -> Directory:
        """Everything but apps that limits can be set on, as it is now."""
        return Directory.of(self.keys.list(), self.users.list(), self.teams.list(), self.projects.list())


def open_stores(settings: Settings) -> Stores:
    """Open the data folder's control database, made on first use. Close `database` at the end."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    master = load_or_create_master_key(settings.data_dir / "master.key")
    sign_audit_with(database, master)
    return Stores(
        settings=settings,
        database=database,
        keys=KeyStore(database, master),
        users=UserStore(database),
        teams=TeamStore(database),
        projects=ProjectStore(database),
        limits=LimitStore(database),
        sessions=Sessions(database, master, settings.session_hours),
        audit=AuditLog(database),
    )


def open_database(settings: Settings) -> Database:
    """The control database at the schema this program needs.

    An empty one, and the embedded one, are migrated here. Any other is somebody's server: its schema
    is changed only by `mainstay migrate`, and a wrong one stops start-up.
    """
    database = Database(settings.database_url.reveal())
    try:
        current, newest = revisions(database)
        if current != newest:
            if current is None or database.dialect == "sqlite":
                migrate(database)
            check(database)
    except BaseException:
        database.close()
        raise
    return database
