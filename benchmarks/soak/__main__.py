"""Run it: `make soak`, or `make soak DURATION=60`. Exit status 1 when memory grew or anything was lost."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from benchmarks.gateway_process import ended, get, wait_until
from benchmarks.measure import Figure, figure, show, verdict, write
from benchmarks.soak import setup
from benchmarks.soak.audit import Books, read_books
from benchmarks.soak.changes import Operator
from benchmarks.soak.clients import Clients, Told
from benchmarks.soak.watch import SLOPE_MAX_MB_H, Watch, grown, trend

DURATION_S = 1200
PER_S = 25.0
SETTLED_AFTER_S = 3.0
FILES_MAX, THREADS_MAX = 10, 4
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results.json"
READ_TO_THE_END = ("steady",)
"""Keys whose clients are told the cost of every request, so that spend is exactly the sum."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def soak(folder: Path, duration_s: float, per_s: float) -> tuple[list[Figure], list[str]]:
    """Figures, and a line for everything that is not explained."""
    mock_port, port = free_port(), free_port()
    project = folder / "project"
    project.mkdir()
    with ended([sys.executable, "-m", "benchmarks.soak.mock", str(mock_port)], cwd=ROOT):
        soaked = asyncio.run(setup.prepare(project, f"http://127.0.0.1:{mock_port}"))
        command = [str(setup.MAINSTAY), "gateway", "--port", str(port)]
        log = folder / "gateway.log"
        with ended(command, soaked.environment(), log, project) as gateway:
            base_url = f"http://127.0.0.1:{port}"
            wait_until(lambda: get(f"{base_url}/readyz") == 200, "the gateway is ready", gateway)
            told, operator, watch, upstream = asyncio.run(
                _load(base_url, soaked, gateway.pid, duration_s, per_s)
            )
            ended_early = gateway.poll()
            books = read_books(project / "data", folder)
    seen = {"clients": told.outcomes, "operator": operator.done, "upstream": upstream}
    sys.stderr.write(json.dumps(seen, indent=1) + "\n")
    wrong = [*told.unexplained, *operator.unexplained, *_book_mistakes(books, told, soaked)]
    if ended_early is not None or gateway.returncode not in (0, -signal.SIGTERM):
        when = "early" if ended_early is not None else "when told to"
        wrong.append(f"the gateway ended {when} with status {gateway.returncode}: {log.read_text()[-500:]}")
    return _figures(told, operator, watch, books, len(wrong)), wrong


async def _load(
    base_url: str, soaked: setup.Soaked, pid: int, duration_s: float, per_s: float
) -> tuple[Told, Operator, Watch, dict[str, int]]:
    ending, watch = asyncio.Event(), Watch(pid)
    tokens = {kind: token for kind, (_, token) in soaked.keys.items()}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        clients = Clients(session, f"{base_url}/v1/chat/completions", tokens, per_s)
        operator = Operator(session, base_url, soaked)
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(ending))
            group.create_task(operator.run(ending))
            await clients.run(duration_s)
            ending.set()
        await asyncio.sleep(SETTLED_AFTER_S)  # cancelled requests settle, the spool is written
        async with session.get(f"{soaked.upstream}/stats") as reply:
            return clients.told, operator, watch, await reply.json()


def _book_mistakes(books: Books, told: Told, soaked: setup.Soaked) -> list[str]:
    """What journal, traces and clients do not agree on."""
    wrong = []
    if books.left_open:
        wrong.append(f"{books.left_open} holds are still open")
    for kind, (key_id, _) in soaked.keys.items():
        spent, traced = books.spent.get(key_id, 0), books.traced.get(key_id, 0)
        if spent != traced:
            wrong.append(f"key {kind}: the journal has {spent} n$, the traces {traced} n$")
        if kind in READ_TO_THE_END and spent != told.cost_nusd[kind]:
            wrong.append(
                f"key {kind}: the journal has {spent} n$, clients were told {told.cost_nusd[kind]} n$"
            )
        if spent < told.cost_nusd[kind]:
            wrong.append(f"key {kind}: less was booked ({spent} n$) than told ({told.cost_nusd[kind]} n$)")
    if missing := told.traces - books.recorded:
        wrong.append(f"{len(missing)} answered requests have no trace on record")
    return wrong


def _figures(told: Told, operator: Operator, watch: Watch, books: Books, wrong: int) -> list[Figure]:
    requests = sum(n for name, n in told.outcomes.items() if name != "held back")
    most = max((s.resident_mb for s in watch.samples), default=0.0)
    minutes = watch.samples[-1].at_s / 60 if watch.samples else 0.0
    changes = sum(operator.done.values())
    return [
        *_memory_trend(watch),
        figure("soak_memory", most, "MB", 200.0, note="most resident"),
        figure("soak_files_grown", grown(watch.warm, "files"), "files", FILES_MAX),
        figure("soak_threads_grown", grown(watch.warm, "threads"), "threads", THREADS_MAX),
        figure("soak_unexplained", max(wrong, told.unexplained_count), "events", 0.0),
        figure("soak_holds_left_open", books.left_open, "holds", 0.0),
        figure(
            "soak_requests",
            requests,
            "requests",
            note=f"in {minutes:.1f} min; {told.hits} cache hits, {changes} changes meanwhile",
        ),
    ]


def _memory_trend(watch: Watch) -> list[Figure]:
    """The line itself, told; and the growth that is proved, judged."""
    found = trend(watch.warm)
    if found is None:
        return [figure("soak_memory_proved_growth", None, "MB/h", SLOPE_MAX_MB_H, note="too short to tell")]
    bounds = f"95 % from {found.low:.1f} to {found.high:.1f}; {found.grown_mb:.2f} MB more at the end"
    return [
        figure("soak_memory_slope", found.mb_per_h, "MB/h", note=bounds),
        figure("soak_memory_proved_growth", found.proved_mb_per_h, "MB/h", SLOPE_MAX_MB_H),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=DURATION_S)
    parser.add_argument("--per-s", type=float, default=PER_S, help="requests a second")
    parser.add_argument("--dry", action="store_true", help="leave results.json as it is")
    parser.add_argument("--folder", type=Path, help="keep the data and the gateway's log here")
    a = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mainstay-soak-") as temporary:
        folder = (a.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        figures, wrong = soak(folder, a.seconds, a.per_s)
    for line in wrong:
        sys.stderr.write(line + "\n")
    show(figures)
    if not a.dry:
        write(figures, RESULTS)
    sys.stderr.write(f"took {time.monotonic() - started:.0f} s\n")
    return verdict(figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
