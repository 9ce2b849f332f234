"""What every command needs: settings, services on the data folder, and a running server if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mainstay.core.config import PROJECT_FILE, Settings, load_settings
from mainstay.core.errors import ConfigError
from mainstay.delivery import Project, load_project
from mainstay.govern import Identity, local_identity
from mainstay.services import Services, build_services, close_services

T = TypeVar("T")


def actor() -> Identity:
    """Whoever may write the data folder is its administrator; the audit log names the system user."""
    return local_identity()


def project_here(required: bool = False) -> Project | None:
    """The project of the current folder; None without `mainstay.yaml` unless `required`."""
    path = Path.cwd() / PROJECT_FILE
    if path.exists():
        return load_project(path)
    if required:
        raise ConfigError(
            f"There is no {PROJECT_FILE} in {Path.cwd()}.",
            fix="Go to a project, or make one: mainstay init my-bot",
        )
    return None


def run_async(services: Services, work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end, then let go of the models' connections and engines in its loop."""

    async def whole() -> T:
        try:
            return await work
        finally:
            await services.catalog.close()

    return asyncio.run(whole())


@contextmanager
def local_services(settings: Settings | None = None) -> Iterator[Services]:
    """Services on this folder's data, for one command; flushed and closed at the end."""
    services = build_services(settings or load_settings(), project_here())
    try:
        yield services
    finally:
        close_services(services)
