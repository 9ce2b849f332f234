"""`mainstay gateway`: the data plane alone, in one process or in several that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop

from mainstay.app import build_gateway_app, build_watch_app
from mainstay.cli.context import project_here
from mainstay.cli.draining import BACKLOG, BesideServer, DrainingServer, server_config
from mainstay.cli.output import JsonFlag, emit, out, say
from mainstay.cli.supervisor import CUT, END, UP, Supervisor
from mainstay.core.config import Settings, load_settings
from mainstay.core.errors import ConfigError, Unavailable
from mainstay.services import GATEWAY_WORKER, build_services, close_services

LINE = "MAINSTAY_GATEWAY_LINE"
"""Environment variable with the number of the open file that joins a process to its supervisor."""


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is stored.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes; more than one need redis_url.")
    ] = 1,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port of the first process's own /metrics, /healthz and /readyz; the next one's is one higher.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Serve `/v1` alone, without pages: to be scaled by processes and hosts beside one `mainstay control`."""
    settings = load_settings({"host": host, "port": port, "data_dir": data_dir})
    if workers > 1 and settings.redis_url is None:
        raise ConfigError(
            f"{workers} gateway processes would each count limits and budgets for themselves.",
            fix="Set redis_url (MAINSTAY_REDIS_URL), or run one process.",
        )
    number = os.environ.get(GATEWAY_WORKER)
    if number is not None:
        _worker(settings, int(number), metrics_port)
        return
    with contextlib.closing(_listening(settings, settings.port)) as sock:
        address, found = sock.getsockname()[:2]
        data = {"base_url": f"http://{address}:{found}/v1", "workers": workers, "metrics_port": metrics_port}

        def tell() -> None:
            emit(data, json, lambda: out.print(f"OpenAI SDK  base_url={data['base_url']}", markup=False))

        if workers == 1:
            with _watch_socket(settings, metrics_port) as watch:
                serve(settings, sock, watch, on_started=tell)
            return
    _supervise(settings, found, workers, metrics_port, tell)


def _worker(settings: Settings, number: int, metrics_port: int | None) -> None:
    """One of several: it ends when its line to the supervisor says so, or breaks."""
    line = socket.socket(fileno=int(os.environ.pop(LINE)))
    line.setblocking(False)
    sock = _listening(settings, settings.port, shared=True)
    with line, _watch_socket(settings, None if metrics_port is None else metrics_port + number) as watch:
        serve(settings, sock, watch, line=line, on_started=lambda: line.sendall(UP))


def _listening(settings: Settings, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket; `shared` ones let other processes of this user bind the same port (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((settings.host, port))
        if not shared:
            sock.listen(BACKLOG)  # two may bind one address, but only one listens
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"The gateway could not listen on {settings.host}:{port}: {error.strerror}.",
            fix="Another program may hold that port; `--port 0` takes a free one.",
        ) from error
    return sock


@contextlib.contextmanager
def _watch_socket(settings: Settings, port: int | None) -> Iterator[socket.socket | None]:
    if port is None:
        yield None
        return
    with contextlib.closing(_listening(settings, port)) as sock:
        yield sock


def serve(
    settings: Settings,
    sock: socket.socket,
    watch: socket.socket | None = None,
    *,
    line: socket.socket | None = None,
    on_started: Callable[[], None] | None = None,
) -> None:
    """Run this process's gateway until it is told to end; requests under way may finish.

    `watch`: where it answers for itself alone. `line`: to the supervisor of several.
    """
    services = build_services(settings, project_here(), role="gateway")
    try:
        app = build_gateway_app(services, shares_port=line is not None)
        server = DrainingServer(
            server_config(app, settings, pages=False), services.gateway.shutdown, settings.drain_s, on_started
        )
        beside = BesideServer(server_config(build_watch_app(services), settings, lifespan=False, pages=False))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(server, sock, beside, watch, line))
    finally:
        close_services(services)


async def _serve(
    server: DrainingServer,
    sock: socket.socket,
    beside: uvicorn.Server,
    watch: socket.socket | None,
    line: socket.socket | None,
) -> None:
    loop = asyncio.get_running_loop()
    watching = None if watch is None else loop.create_task(beside.serve([watch]), name="mainstay-watch-port")
    if line is not None:
        loop.add_reader(line, _obey, line, server)
    try:
        await server.serve([sock])
    finally:
        if line is not None:
            loop.remove_reader(line)
        beside.should_exit = True
        if watching is not None:
            await asyncio.wait({watching})


def _obey(line: socket.socket, server: DrainingServer) -> None:
    try:
        said = line.recv(16)
    except BlockingIOError:
        return
    except OSError:
        said = b""
    if CUT in said:
        server.cut()
    elif END in said or not said:
        server.end()
    if not said:  # the supervisor is gone: there will be no more
        asyncio.get_running_loop().remove_reader(line)


def _supervise(
    settings: Settings, port: int, workers: int, metrics_port: int | None, tell: Callable[[], None]
) -> None:
    """Keep the port while `workers` processes come and go on it."""
    command = [sys.executable, "-m", "mainstay", "gateway", "--workers", str(workers)]
    command += ["--host", settings.host, "--port", str(port), "--data-dir", str(settings.data_dir)]
    if metrics_port is not None:
        command += ["--metrics-port", str(metrics_port)]

    def start(number: int, line: socket.socket) -> subprocess.Popen[bytes]:
        environment = {**os.environ, GATEWAY_WORKER: str(number), LINE: str(line.fileno())}
        # A session of its own: Ctrl-C reaches the supervisor alone, which passes it on once.
        return subprocess.Popen(  # noqa: S603 - ourselves
            command, env=environment, pass_fds=(line.fileno(),), start_new_session=True
        )

    with contextlib.closing(_listening(settings, port, shared=True)):
        Supervisor(start, workers, settings.drain_s).run(tell)
        say("Stopped.")
