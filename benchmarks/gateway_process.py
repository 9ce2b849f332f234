"""Start a prepared contender, the mock upstream and the load generator, each on its core; read what they cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CONTENDER = Path(__file__).parent / "gateway_contender.py"
MOCK_PORT = 9161
UPSTREAM = f"http://127.0.0.1:{MOCK_PORT}"
READY_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Tools:
    """What the driver built: `folder` holds `gwload` and `mock_upstream`."""

    folder: Path
    load_core: str = "0"

    def load(self, url: str, body: Path, headers: Sequence[str], *options: str) -> dict[str, Any]:
        """Run the load generator to its end; its figures (latencies in microseconds)."""
        return json.loads(self.start_load(url, body, headers, *options).communicate()[0])  # type: ignore[no-any-return]

    def start_load(
        self, url: str, body: Path, headers: Sequence[str], *options: str
    ) -> subprocess.Popen[str]:
        command = ["taskset", "-c", self.load_core, str(self.folder / "gwload"), "--url", url]
        command += ["--body", str(body), "--warmup", "0", "--timeout", "30"]
        for header in headers:
            command += ["-H", header]
        return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)

    @contextmanager
    def mock(self, **settings: int) -> Iterator[None]:
        """The mock upstream, set to `delay_ms`, `chunks`, `chunk_delay_us`."""
        command = ["taskset", "-c", self.load_core, str(self.folder / "mock_upstream")]
        with ended([*command, "--port", str(MOCK_PORT)]):
            wait_until(lambda: get(f"{UPSTREAM}/health") == 200, "the mock upstream answers")
            asked = "&".join(f"{name}={value}" for name, value in settings.items())
            get(f"{UPSTREAM}/__set?{asked}")
            yield


@dataclass(frozen=True, slots=True)
class Served:
    """A contender that answers. `headers` are those a client must send."""

    pid: int
    url: str
    headers: Sequence[str]

    @property
    def resident_mb(self) -> float:
        parent = psutil.Process(self.pid)
        return sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)]) / 1e6


@contextmanager
def contender(
    folder: Path, port: int, cores: str, *more: str, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Mainstay with every feature on, prepared anew and pinned to `cores`; ended at the end."""
    given = {**os.environ, **(environment or {})}
    headers_file = folder.parent / f"{folder.name}.headers"
    prepare = [sys.executable, str(CONTENDER), "prepare", str(folder), UPSTREAM, str(headers_file)]
    subprocess.run(prepare, check=True, env=given)
    headers = headers_file.read_text().splitlines()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    serve = ["taskset", "-c", cores, sys.executable, str(CONTENDER), "serve", str(folder), str(port)]
    with ended([*serve, *(more or ("gateway",))], given, folder.parent / f"{folder.name}.log") as process:
        wait_until(lambda: get(f"http://127.0.0.1:{port}/readyz") == 200, "the gateway is ready", process)
        yield Served(process.pid, url, headers)


@contextmanager
def ended(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is told to end (SIGTERM) when the block ends, and waited for."""
    output = subprocess.DEVNULL if log is None else log.open("ab")
    process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=cwd)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url: str) -> int:
    """The status; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(holds: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Raises TimeoutError naming `what` when it does not hold within a minute, or RuntimeError once `process` ended."""
    end = time.monotonic() + READY_WITHIN_S
    while not holds():
        if process is not None and process.poll() is not None:
            raise RuntimeError(
                f"before {what}, the process ended with status {process.returncode}: see its log"
            )
        if time.monotonic() > end:
            raise TimeoutError(f"after {READY_WITHIN_S} s it was still not so that {what}")
        time.sleep(0.1)
