"""A whole gateway under uvicorn in a thread of its own, for clients and broken upstreams in the test's loop."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
import yaml

from mainstay.app import build_app
from mainstay.core.config import load_settings
from mainstay.core.yamlfile import load_yaml
from mainstay.govern import SYSTEM
from mainstay.govern.types import ApiKey, Budget, Limits
from mainstay.models import read_models_config
from mainstay.observe.types import Attr, Span
from mainstay.services import Services, build_services, close_services
from mainstay.serving import Dispatcher, Gateway, Router
from mainstay.serving.limits import BudgetState
from mainstay.serving.routing.breakers import TargetView

PRICE = {"input": 0.1, "output": 0.4}
INPUT_NUSD, OUTPUT_NUSD = 100, 400
"""The same per token."""
KEYS = {"FAULTS_KEY_A": "sk-upstream-a", "FAULTS_KEY_B": "sk-upstream-b"}
DOLLAR_NUSD = 10**9
STALLED_AFTER_S = 0.5


async def _a_tenth(wait_s: float) -> None:
    """Pauses between attempts, in time for tests."""
    await asyncio.sleep(wait_s / 10)


class World:
    """`configure` tells the running gateway of upstreams, as an edited project file would. Use `started` to begin."""

    def __init__(self, folder: Path, ping_after_s: float = 10.0, **settings: object) -> None:
        flags = {"data_dir": folder / "data", "models_dir": folder / "models", "port": 0, **settings}
        built = build_services(load_settings(flags, {}), role="all")
        deps = replace(built.deps, dispatcher=Dispatcher(Router(), built.catalog.route, _a_tenth))
        gateway = Gateway(
            deps,
            built.keys.hash_token,
            responses=built.gateway._responses,
            stalled_after_s=STALLED_AFTER_S,
            ping_after_s=ping_after_s,
        )
        self.services: Services = replace(built, deps=deps, gateway=gateway)
        self.folder = folder
        self._numbers = itertools.count(1)
        self._config: dict[str, dict[str, Any]] = {"providers": {}, "models": {}, "routes": {}}
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway")

    # --- the server ------------------------------------------------------------------------------------------

    def start(self) -> World:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()
        close_services(self.services)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        config = uvicorn.Config(
            build_app(self.services),
            http="httptools",
            log_level="critical",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(self._server.serve([self._listener]))
        while not self._server.started:
            await asyncio.sleep(0.005)
        self._up.set()
        await serving

    async def in_loop(self, function: Any, *arguments: Any) -> Any:
        """What belongs to the gateway's own event loop is called there."""

        async def call() -> Any:
            return function(*arguments)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self.loop))

    # --- what a test arranges --------------------------------------------------------------------------------

    async def configure(
        self,
        *origins: str,
        provider: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        price: Mapping[str, float] | None = PRICE,
        also: bool = False,
    ) -> str:
        """A route, in order, over a model at each of these origins; its name, which no other test shares.

        `also`: beside what was configured before, instead of in its place.
        """
        if not also:
            self._config = {"providers": {}, "models": {}, "routes": {}}
        name = f"route-{next(self._numbers)}"
        for number, origin in enumerate(origins):
            upstream, alias = f"{name}-at-{number}", f"{name}-{number}"
            self._config["providers"][upstream] = {
                "kind": "openai",
                "base_url": f"{origin}/v1",
                "idle_timeout_s": 0.3,
                **(provider or {}),
            }
            entry: dict[str, Any] = {"provider": upstream, "model": "m", **(model or {})}
            if price is not None:
                entry["price"] = dict(price)
            self._config["models"][alias] = entry
        targets = [f"{name}-{number}" for number in range(len(origins))]
        self._config["routes"][name] = {"policy": "ordered", "targets": targets, **(route or {})}
        await self.reload()
        return name

    async def reload(self) -> None:
        path = self.folder / "mainstay.yaml"
        path.write_text(yaml.safe_dump(self._config))
        catalog = self.services.catalog
        config = await asyncio.to_thread(lambda: catalog.checked(read_models_config(load_yaml(path))))
        await self.in_loop(catalog.reload, config)

    def key(self, limits: Limits | None = None, **options: Any) -> tuple[ApiKey, str]:
        """A key with a hard budget of a dollar, known to the gateway; and its token."""
        if limits is None:
            limits = Limits(budgets=(Budget(DOLLAR_NUSD, "total"),))
        key, token = self.services.keys.create(SYSTEM, "faults", role="developer", limits=limits, **options)
        self.services.refresher.refresh()
        return key, token.reveal()

    # --- what a test looks at --------------------------------------------------------------------------------

    async def budget(self, key: ApiKey) -> BudgetState:
        scopes = self.services.snapshots.current.scopes_of(key, None)
        states = await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self.services.deps.limiter.states(scopes), self.loop)
        )
        return states[0]

    async def settled(self, key: ApiKey) -> BudgetState:
        """Where the key's budget stands once nothing of it is held any more."""
        while True:
            state = await self.budget(key)
            if state.held_nusd == 0:
                return state
            await asyncio.sleep(0.01)

    async def trace(self, trace_id: str) -> Trace:
        await asyncio.to_thread(self.services.recorder.flush)
        await asyncio.to_thread(self.services.drain.flush)
        return Trace(self.services.traces.get(trace_id))

    async def last_trace(self, key: ApiKey) -> Trace:
        """The trace of the key's latest request, once it is recorded."""
        while True:
            await asyncio.to_thread(self.services.recorder.flush)
            await asyncio.to_thread(self.services.drain.flush)
            for row in self.services.traces.list():
                if row.key == key.id:
                    return Trace(self.services.traces.get(row.trace_id))
            await asyncio.sleep(0.01)

    async def targets(self, route: str) -> list[TargetView]:
        """What routing knows of a route's targets."""
        breakers = self.services.deps.dispatcher.router.breakers
        views = await self.in_loop(lambda: breakers.states(self.loop.time()))
        return [view for view in views if view.provider.startswith(f"{route}-at-")]


class Trace:
    def __init__(self, spans: Sequence[Span]) -> None:
        known = {span.span_id for span in spans}
        self.root = next(span for span in spans if span.parent_id not in known)
        self.attempts = [span for span in spans if span.name.startswith("chat ")]

    @property
    def attempts_cost_nusd(self) -> int:
        return sum(int(str(span.attributes.get(Attr.COST_NUSD, 0))) for span in self.attempts)
