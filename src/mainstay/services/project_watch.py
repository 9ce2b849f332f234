"""Follows files of a running server: the project file (providers, models, routes) and the policy of plain models.

What they say takes over without a restart and without a dropped request; a bad file never replaces a good one.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from mainstay.core.content import digest_bytes
from mainstay.core.errors import MainstayError
from mainstay.core.yamlfile import load_yaml
from mainstay.guard import Policy, default_policy, load_policy
from mainstay.models import Catalog, read_models_config

log = logging.getLogger(__name__)

POLL_S = 0.5
SETTLED_S = 0.1
"""A file that changed within this long is still being written."""


class FileWatch(ABC):
    """One file that is followed.

    `problem` says what is wrong with the file as it is now; None when it is what is served. `on_reload` is
    called, off the event loop, after each change that took over.
    """

    def __init__(self, path: Path, on_reload: Callable[[], object]) -> None:
        self.path = path
        self.problem: str | None = None
        self._on_reload = on_reload
        self._seen = _digest(path)

    async def run(self, poll_s: float = POLL_S) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.look()
            except Exception as error:  # the task's outermost frame: the next change is to be seen, too
                self._refused(error)

    async def look(self) -> bool:
        """Take the file over if it has changed; True when it was."""
        digest = await asyncio.to_thread(_digest, self.path)
        if digest == self._seen or digest is None:
            return False
        await asyncio.sleep(SETTLED_S)
        if digest != await asyncio.to_thread(_digest, self.path):
            return False
        self._seen = digest
        try:
            take_over = await asyncio.to_thread(self._read)
        except MainstayError as error:
            self._refused(error)
            return False
        take_over()
        self.problem = None
        await asyncio.to_thread(self._on_reload)
        log.info("%s has changed and is served now", self.path.name)
        return True

    @abstractmethod
    def _read(self) -> Callable[[], None]:
        """Read and check the file, off the event loop; what is returned takes it over, on it."""

    def _refused(self, error: Exception) -> None:
        self.problem = f"{error}"
        log.warning("%s has changed and is not taken over: %s", self.path.name, error)


class ProjectWatch(FileWatch):
    """Reloads the catalogue when the project file has changed."""

    def __init__(self, path: Path, catalog: Catalog, on_reload: Callable[[], object]) -> None:
        super().__init__(path, on_reload)
        self._catalog = catalog

    def _read(self) -> Callable[[], None]:
        config = self._catalog.checked(read_models_config(load_yaml(self.path)))
        return lambda: self._catalog.reload(config)


class PlainPolicy:
    """The policy that guards models asked by their own name: the file's, or the built-in one without a file."""

    def __init__(self, path: Path | None) -> None:
        self.policy: Policy = default_policy() if path is None else load_policy(path, "plain")


class PolicyWatch(FileWatch):
    """Reads the policy of plain models again when its file has changed."""

    def __init__(self, path: Path, plain: PlainPolicy, on_reload: Callable[[], object]) -> None:
        super().__init__(path, on_reload)
        self._plain = plain

    def _read(self) -> Callable[[], None]:
        policy = load_policy(self.path, "plain")

        def take_over() -> None:
            self._plain.policy = policy

        return take_over


def _digest(path: Path) -> str | None:
    """None while the file is not there: an editor may be replacing it."""
    try:
        return digest_bytes(path.read_bytes())
    except OSError:
        return None
