"""`mainstay up` serves; `RunningServer` is the same server inside another command."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

import typer
import uvloop

from mainstay.app import build_app, build_control_alone
from mainstay.cli.context import actor, project_here
from mainstay.cli.draining import DrainingServer, server_config
from mainstay.cli.output import JsonFlag, emit, out, progress_bar, say
from mainstay.cli.project import Bar, render_published, warn_of_models
from mainstay.core.config import Settings, load_settings
from mainstay.core.errors import MainstayError, NotFound, Unavailable
from mainstay.delivery import Project
from mainstay.models import install
from mainstay.services import (
    DataFolderLock,
    Janitor,
    Services,
    announce_server,
    build_services,
    close_services,
    local_admin,
    local_key,
    prune_traces,
    publish,
    sign_in_link,
    tend_indexes,
    withdraw_server,
)

STOP_AFTER_DRAIN_S = 30
"""Beyond drain_s: for engines to be let go of."""

log = logging.getLogger(__name__)

T = TypeVar("T")
Role = Literal["all", "control"]


class RunningServer:
    """A Mainstay server in a thread of this process, on embedded stores; use as a context manager.

    `base_url` is where it answers, `key` a token for local clients. Only one runs on a data folder.
    """

    def __init__(self, settings: Settings, project: Project | None = None, role: Role = "all") -> None:
        self.settings = settings
        self.role = role
        self.project = project
        self.services: Services
        self.base_url: str
        self.key: str
        # Waited for instead of the thread: a `Thread.join` that a signal interrupts takes the thread for ended.
        self._ended = threading.Event()
        self._warming: list[Future[None]] = []
        self._thread = threading.Thread(target=self._serve, name="mainstay-server", daemon=True)

    def __enter__(self) -> RunningServer:
        with ExitStack() as undo:
            lock = DataFolderLock(self.settings.data_dir)
            lock.acquire()
            undo.callback(lock.release)
            self.services = build_services(self.settings, self.project, role=self.role)
            undo.callback(close_services, self.services)
            self.key = local_key(self.services)
            app = build_app(self.services) if self.role == "all" else build_control_alone(self.services)
            self._server = DrainingServer(
                server_config(app, self.settings), self.services.gateway.shutdown, self.settings.drain_s
            )
            self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            self._loop = self._runner.get_loop()
            self._thread.start()
            undo.callback(self._stop)
            self.base_url = self._wait_until_up()
            announce_server(self.settings, self.base_url)
            undo.callback(withdraw_server, self.settings)
            janitor = Janitor(
                {
                    "indexes": partial(tend_indexes, self.services),
                    "retention of traces": partial(prune_traces, self.services),
                }
            )
            janitor.start()
            undo.callback(janitor.close)
            self._undo = undo.pop_all()
        return self

    def _serve(self) -> None:
        try:
            with self._runner:  # at its end: tasks cancelled, the loop's worker threads done, the loop closed
                self._runner.run(self._server.serve())
        finally:
            self._ended.set()

    def _stop(self) -> None:
        """Requests under way end, models are let go of in their loop, then the loop ends. Services outlive it."""
        for warming in self._warming:
            warming.cancel()
        self._server.end()
        within_s = self.settings.drain_s + STOP_AFTER_DRAIN_S
        with told_again(self._server.cut):
            ended = self._ended.wait(within_s)
        if not ended:
            log.error("The server did not stop within %d s; it is left behind.", within_s)

    def _wait_until_up(self) -> str:
        while not self._server.started:
            if self._ended.wait(0.01):
                raise Unavailable(
                    f"The server could not listen on {self.settings.host}:{self.settings.port}.",
                    fix="Another program may hold that port; `--port 0` takes a free one.",
                )
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://{self.settings.host}:{port}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work on the server's loop, where its connections and engines live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def warm_up(self) -> None:
        """Load the local models of what is in production, in the background."""
        models = {r.model for n, r in self.services.snapshots.current.runnables.items() if "@" not in n}
        for model in sorted(models):
            self._warming.append(asyncio.run_coroutine_threadsafe(self._warm_up(model), self._loop))

    async def _warm_up(self, model: str) -> None:
        try:
            await self.services.catalog.warm_up(model)
        except MainstayError as error:  # the first question will say so, too
            log.warning("%s is not ready: %s", model, error)

    def wait(self) -> None:
        """Until interrupted or told to end."""
        with until_told_to_end():
            self._ended.wait()
        if self._ended.is_set():
            raise Unavailable("The server ended by itself.", fix="See the lines above, then start it again.")
        say("Stopping …")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


@contextmanager
def told_again(hurry: Callable[[], None]) -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C call `hurry`, and interrupt nothing: the end has begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: hurry()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def until_told_to_end() -> Iterator[None]:
    """SIGTERM and Ctrl-C leave the block, and all is well: that is how a server ends."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is stored.")] = None,
    apply_project: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Apply mainstay.yaml first.")
    ] = True,
    json: JsonFlag = False,
) -> None:
    """Apply this folder's project, serve it, and print the address and a one-time sign-in link."""
    settings = load_settings({"host": host, "port": port, "data_dir": data_dir})
    project = project_here()
    if project is not None:
        require_models(settings, project)
        warn_of_models(settings, project)
    with until_told_to_end(), RunningServer(settings, project) as server:
        if project is not None and apply_project:
            with progress_bar("apply") as bar:
                published = publish(server.services, actor(), project, note="mainstay up", progress=Bar(bar))
            if not json:
                render_published(published)
        server.warm_up()
        data = addresses(server)
        emit(data, json, lambda: show_addresses(data, list(project.apps) if project else []))
        server.wait()


def control(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is stored.")] = None,
    json: JsonFlag = False,
) -> None:
    """Serve pages, control API and telemetry alone, and bring what gateways record into the trace store."""
    settings = load_settings({"host": host, "port": port, "data_dir": data_dir})
    with until_told_to_end(), RunningServer(settings, project_here(), role="control") as server:
        admin = local_admin(server.services)
        data = {
            "web_ui": server.base_url,
            "sign_in_link": sign_in_link(server.services, actor(), admin.id, server.base_url),
        }
        emit(
            data,
            json,
            lambda: out.print(
                f"Sign in     {data['sign_in_link']}   (once, within 15 minutes)", markup=False
            ),
        )
        server.wait()


def require_models(settings: Settings, project: Project) -> None:
    """Raises NotFound, with one command that mends it, when the project needs local models that are not here."""
    wanted = {app.model.removeprefix("local/") for app in project.apps.values()} & {"smollm2"}
    if project.knowledge:
        wanted.add("minilm")
    missing = wanted - {model.name for model in install.installed(settings.models_dir)}
    if missing:
        raise NotFound(
            f"The project needs local models that are not in {settings.models_dir}: {', '.join(sorted(missing))}.",
            fix=f"Run: mainstay models add {' '.join(sorted(missing, reverse=True))}",
        )


def addresses(server: RunningServer) -> dict[str, str]:
    admin = local_admin(server.services)
    return {
        "base_url": f"{server.base_url}/v1",
        "web_ui": server.base_url,
        "sign_in_link": sign_in_link(server.services, actor(), admin.id, server.base_url),
        "api_key": server.key,
    }


def show_addresses(data: dict[str, str], apps: list[str]) -> None:
    out.print(f"Web UI      {data['web_ui']}", markup=False)
    out.print(f"Sign in     {data['sign_in_link']}   (once, within 15 minutes)", markup=False)
    out.print(f"OpenAI SDK  base_url={data['base_url']}  api_key={data['api_key']}", markup=False)
    for app in apps:
        out.print(f'Ask         mainstay ask {app} "…"', markup=False)
    say("Ctrl-C stops it.")
