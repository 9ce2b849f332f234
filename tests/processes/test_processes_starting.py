"""Processes that cannot start say why, and nobody starts them for ever; none outlives its supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes_world import Started, World, until, world

from mainstay.cli import supervisor
from mainstay.cli.supervisor import Supervisor
from mainstay.core.errors import Unavailable
from support.redis_server import RedisServer


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "w") as found:
        yield found


def refused(started: Started) -> str:
    assert started.process.wait(60) in (1, 2)
    return " ".join(started.said().split())


def test_a_second_gateway_on_a_folder_or_port_is_refused_with_what_to_do(made: World, tmp_path: Path) -> None:
    first = made.start("gateway")
    alone = made.run("gateway", "--workers", "2", "--port", "0")
    same_folder = made.run("gateway", "--port", "0")
    port = first.base_url.rpartition(":")[2]
    same_port = made.run("gateway", "--port", port, MAINSTAY_DATA_DIR=str(tmp_path / "other"))
    assert "count limits and budgets for themselves. Set redis_url" in refused(alone)
    said = refused(same_folder)
    assert "Another process keeps the budgets in" in said
    assert "set redis_url (MAINSTAY_REDIS_URL) for both" in said
    assert f"could not listen on 127.0.0.1:{port}" in refused(same_port)


def test_processes_that_cannot_start_end_their_supervisor_with_the_reason(
    made: World, tmp_path: Path, redis_server: RedisServer
) -> None:
    (tmp_path / "plain.yaml").write_text("input: {pii: sometimes}\n")
    started = made.run(
        "gateway", "--workers", "2", "--port", "0",
        MAINSTAY_REDIS_URL=redis_server.url, MAINSTAY_PLAIN_POLICY=str(tmp_path / "plain.yaml"),
    )  # fmt: skip
    said = refused(started)
    assert "sometimes" in said
    assert (
        "could not start (exit 2). Its own lines above say why." in said or "could not start (exit 1)" in said
    )


@pytest.mark.slow
def test_processes_end_when_their_supervisor_is_killed(made: World, redis_server: RedisServer) -> None:
    gateway = made.start("gateway", "--workers", "2", MAINSTAY_REDIS_URL=redis_server.url)
    pid = gateway.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    assert gateway.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not any(_runs(child) for child in children))


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Shells:
    """Stand-ins for gateway processes, whose input and output is their line."""

    def __init__(self, *scripts: str) -> None:
        self._scripts = list(scripts)
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, _number: int, line: socket.socket) -> subprocess.Popen[bytes]:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.started.append(subprocess.Popen(["sh", "-c", script], stdin=line, stdout=line))
        return self.started[-1]


SERVES = "printf u; head -c1"
SERVES_AND_DIES = "printf u; sleep 0.3; exit 7"


def test_a_process_that_dies_before_it_was_up_ends_all() -> None:
    shells = Shells(SERVES, "exit 3")
    with pytest.raises(Unavailable, match=r"process 1 could not start \(exit 3\)"):
        Supervisor(shells, 2, drain_s=5).run()
    assert [shell.poll() is not None for shell in shells.started] == [True, True]


def test_a_supervisor_gives_up_when_nothing_serves_and_starts_fail_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT_S", 0.01)
    shells = Shells(SERVES_AND_DIES, "exit 4")
    with pytest.raises(Unavailable, match="No gateway process serves"):
        Supervisor(shells, 1, drain_s=5).run()
    assert len(shells.started) == supervisor.FAILURES_MAX


def test_a_process_that_fails_is_tried_on_while_another_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(supervisor, "WAIT_S_MAX", 0.02)
    shells = Shells(SERVES, SERVES_AND_DIES, "exit 4")

    def end_after_many_starts() -> None:
        until(lambda: len(shells.started) > supervisor.FAILURES_MAX + 3)
        os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=end_after_many_starts)
    watching.start()
    Supervisor(shells, 2, drain_s=5).run()
    watching.join()
    assert shells.started[0].returncode == 0, "it was told to end, and ended by itself"
