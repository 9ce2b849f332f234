"""What every command needs: who acts, the project, and the data folder's services.

Imports of what is heavy are late here: they are the start-up time of every command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mainstay.core.config import PROJECT_FILE, Settings, load_settings
from mainstay.core.errors import ConfigError
from mainstay.govern import Identity, local_identity

if TYPE_CHECKING:
    from mainstay.delivery import Project
    from mainstay.observe import TraceStore
    from mainstay.services import Services, Stores

T = TypeVar("T")


def actor() -> Identity:
    """Whoever may write the data folder is its administrator; the audit log names the system user."""
    return local_identity()


def project_here(required: bool = False) -> Project | None:
    """The project of the current folder; None without `mainstay.yaml` unless `required`."""
    path = Path.cwd() / PROJECT_FILE
    if path.exists():
        from mainstay.delivery import load_project

        return load_project(path)
    if required:
        raise ConfigError(
            f"There is no {PROJECT_FILE} in {Path.cwd()}.",
            fix="Go to a project, or make one: mainstay init my-bot",
        )
    return None


def require_data_folder(settings: Settings) -> None:
    """Raises ConfigError where there is neither a project nor its data: nothing to read, nothing to make."""
    if settings.data_dir.exists() or (Path.cwd() / PROJECT_FILE).exists():
        return
    raise ConfigError(
        f"There is neither a {PROJECT_FILE} in {Path.cwd()} nor the data folder {settings.data_dir}.",
        fix="Go to a project, name its data folder in MAINSTAY_DATA_DIR, or make one: mainstay init my-bot",
    )


def run_async(services: Services, work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end, then let go of the models' connections and engines in its loop."""

    async def whole() -> T:
        try:
            return await work
        finally:
            await services.catalog.close()

    return asyncio.run(whole())


@contextmanager
def local_services() -> Iterator[Services]:
    """Services on this folder's data, for one command; flushed and closed at the end."""
    from mainstay.services import build_services, close_services

    settings = load_settings()
    require_data_folder(settings)
    services = build_services(settings, project_here())
    try:
        yield services
    finally:
        close_services(services)


@contextmanager
def local_stores(create: bool = False) -> Iterator[Stores]:
    """The control database alone, for commands that need no more: it opens in a fraction of the time.

    `create`: the command may make the data folder where there is no project.
    """
    from mainstay.services import open_stores

    settings = load_settings()
    if not create:
        require_data_folder(settings)
    stores = open_stores(settings)
    try:
        yield stores
    finally:
        stores.database.close()


@contextmanager
def local_traces() -> Iterator[TraceStore]:
    """The trace store alone, with everything in it that was recorded so far."""
    from mainstay.observe import Drain, Spool, TraceStore

    settings = load_settings()
    require_data_folder(settings)
    folder = settings.data_dir / "observe"
    spool, traces = Spool(folder / "spool"), TraceStore(folder)
    drain = Drain(spool, traces)
    try:
        drain.flush()
        yield traces
    finally:
        drain.close()
        spool.close()
        traces.close()
