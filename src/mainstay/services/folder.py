"""The data folder as processes share it: one server at a time, found by the others through a small file."""

from __future__ import annotations

import fcntl
import os
import urllib.error
import urllib.request
from pathlib import Path

import orjson

from mainstay.core.config import Settings
from mainstay.core.content import write_atomically
from mainstay.core.errors import Conflict

_HEALTH_TIMEOUT_S = 2.0


class DataFolderLock:
    """Held by the one server of a data folder; the system lets go of it when the process dies."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "server.lock"
        self._handle: int | None = None

    def acquire(self) -> None:
        """Raises Conflict when another server runs on this folder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Conflict(
                f"A Mainstay server already runs on {self._path.parent}.",
                fix="Use it, stop it, or give this one another folder: --data-dir.",
            ) from None
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def announce_server(settings: Settings, base_url: str) -> None:
    """Let commands on this data folder find the running server."""
    write_atomically(settings.data_dir / "server.json", orjson.dumps({"base_url": base_url}))


def withdraw_server(settings: Settings) -> None:
    """The announced server is gone; another may answer on its port tomorrow."""
    (settings.data_dir / "server.json").unlink(missing_ok=True)


def local_key_path(settings: Settings) -> Path:
    return settings.data_dir / "local.key"


def running_server(settings: Settings) -> tuple[str, str] | None:
    """(base URL, key) of the server on this data folder; None when none answers."""
    try:
        base_url = str(orjson.loads((settings.data_dir / "server.json").read_bytes())["base_url"])
        key = local_key_path(settings).read_text().strip()
        with urllib.request.urlopen(f"{base_url}/healthz", timeout=_HEALTH_TIMEOUT_S):  # noqa: S310 - our own file
            return base_url, key
    except (OSError, urllib.error.URLError, orjson.JSONDecodeError, KeyError):
        return None
