"""`mainstay gateway`: the data plane alone, in one process or in several that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop

from mainstay.app import build_gateway_app
from mainstay.cli.context import project_here
from mainstay.cli.output import JsonFlag, emit, out, say
from mainstay.core.config import Settings, load_settings
from mainstay.core.errors import ConfigError, Unavailable
from mainstay.services import GATEWAY_WORKER, build_services, close_services

log = logging.getLogger(__name__)

_RESTART_AFTER_S = 1.0
_BACKLOG = 2048


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is stored.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes; more than one need redis_url.")
    ] = 1,
    json: JsonFlag = False,
) -> None:
    """Serve `/v1` alone, without pages: to be scaled by processes and hosts beside one `mainstay control`."""
    settings = load_settings({"host": host, "port": port, "data_dir": data_dir})
    if workers > 1 and settings.redis_url is None:
        raise ConfigError(
            f"{workers} gateway processes would each count limits and budgets for themselves.",
            fix="Set redis_url, or run one process.",
        )
    if os.environ.get(GATEWAY_WORKER) is not None:
        serve(settings, _listening(settings, shared=True))
        return
    with contextlib.closing(_listening(settings, shared=workers > 1, listen=workers == 1)) as sock:
        address, number = sock.getsockname()[:2]
        data = {"base_url": f"http://{address}:{number}/v1", "workers": workers}
        emit(data, json, lambda: out.print(f"OpenAI SDK  base_url={data['base_url']}", markup=False))
        if workers == 1:
            serve(settings, sock)
        else:
            supervise(settings, number, workers)


def _listening(settings: Settings, *, shared: bool, listen: bool = True) -> socket.socket:
    """A bound socket; `shared` ones let other processes of this user bind the same port (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"The gateway could not listen on {settings.host}:{settings.port}: {error.strerror}.",
            fix="Another program may hold that port; `--port 0` takes a free one.",
        ) from error
    if listen:
        sock.listen(_BACKLOG)
    return sock


def serve(settings: Settings, sock: socket.socket) -> None:
    """Run this process's gateway until it is told to end; requests under way may finish."""
    services = build_services(settings, project_here(), role="gateway")
    try:
        config = uvicorn.Config(
            build_gateway_app(services),
            http="httptools",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=settings.drain_s,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(uvicorn.Server(config).serve([sock]))
    except KeyboardInterrupt:
        pass
    finally:
        close_services(services)


def supervise(settings: Settings, port: int, workers: int) -> None:
    """Keep `workers` processes up on one port; pass on the signal to end, and wait until they have drained."""
    command = [sys.executable, "-m", "mainstay", "gateway", "--workers", str(workers)]
    command += ["--host", settings.host, "--port", str(port), "--data-dir", str(settings.data_dir)]
    running: dict[int, subprocess.Popen[bytes]] = {}
    ending = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while not ending:
        for index in range(workers):
            worker = running.get(index)
            if worker is not None and worker.poll() is not None:
                log.error("gateway process %d ended with %s; it is started again", index, worker.returncode)
                time.sleep(_RESTART_AFTER_S)
            if worker is None or worker.poll() is not None:
                environment = {**os.environ, GATEWAY_WORKER: str(index)}
                running[index] = subprocess.Popen(command, env=environment)  # noqa: S603 - ourselves
        time.sleep(0.1)
    say("Stopping …")
    for worker in running.values():
        worker.terminate()
    for worker in running.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(settings.drain_s + 10)
        worker.kill()
