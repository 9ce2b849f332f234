"""Follows the project file of a running server: providers, models and routes change without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from mainstay.core.content import digest_bytes
from mainstay.core.errors import MainstayError
from mainstay.core.yamlfile import load_yaml
from mainstay.models import Catalog, ModelsConfig, read_models_config

log = logging.getLogger(__name__)

POLL_S = 0.5


class ProjectWatch:
    """Reloads the catalogue when the file has changed; a bad file never replaces a good one.

    `problem` says what is wrong with the file as it is now; None when it is what is served. `on_reload` is
    called after each change that took over.
    """

    def __init__(self, path: Path, catalog: Catalog, on_reload: Callable[[], object]) -> None:
        self._path = path
        self._catalog = catalog
        self._on_reload = on_reload
        self._seen = _digest(path)
        self.problem: str | None = None

    async def run(self, poll_s: float = POLL_S) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            await self.look()

    async def look(self) -> bool:
        """Take the file over if it has changed; True when it was."""
        digest = await asyncio.to_thread(_digest, self._path)
        if digest == self._seen or digest is None:
            return False
        self._seen = digest
        try:
            config = await asyncio.to_thread(self._read)
        except MainstayError as error:
            self.problem = f"{error}"
            log.warning("%s has changed and is not taken over: %s", self._path.name, error)
            return False
        self._catalog.reload(config)
        self.problem = None
        await asyncio.to_thread(self._on_reload)
        log.info("%s has changed and is served now", self._path.name)
        return True

    def _read(self) -> ModelsConfig:
        return self._catalog.checked(read_models_config(load_yaml(self._path)))


def _digest(path: Path) -> str | None:
    """None while the file is not there: an editor may be replacing it."""
    try:
        return digest_bytes(path.read_bytes())
    except OSError:
        return None
