"""A Mainstay for the page tests: real stores and the real request pipeline, filled through public APIs.

Only the language model and the search are small stand-ins, so that no download is needed.
"""

from __future__ import annotations

import asyncio
import html
import re
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from mainstay.app import build_control_app
from mainstay.core.config import load_settings
from mainstay.core.errors import ConfigError
from mainstay.core.ids import new_trace_id
from mainstay.delivery import load_project
from mainstay.evaluate import load_dataset
from mainstay.govern import Budget, Identity, Limits, LimitScope, Team, local_identity
from mainstay.knowledge import FolderSource, Library
from mainstay.models import UnknownModel
from mainstay.models.capabilities import ALL
from mainstay.models.collect import collect
from mainstay.models.errors import ProviderAuthFailed, ProviderError, ProviderUnreachable
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    ModelInfo,
    Price,
    Route,
    RouteTarget,
    Target,
    Usage,
    WireFormat,
)
from mainstay.observe import Span, TraceStore
from mainstay.retrieval.types import Passage, RetrievalSettings, Retrieved
from mainstay.services import Services, build_services, close_services, evaluate_app
from mainstay.serving import Dispatcher, Router, ask
from mainstay.serving.limits.types import Ask
from mainstay.serving.types import Call, ChatRequest

EXAMPLE = Path(__file__).parents[2] / "examples" / "handbook"
DOCUMENTS = (
    "cold-chain.md",
    "incident-response.html",
    "operations-handbook.pdf",
    "people-and-leave.docx",
    "rates-and-limits.csv",
    "supplier-newsletter.md",
)
PASSWORD = "a long enough password"
EMAILS = {"admin": "ada@example.org", "developer": "dev@example.org", "viewer": "vic@example.org"}
ClientFor = Callable[[str | None], TestClient]
"""Makes a client signed in with a role; None: nobody."""

FALLBACK_QUESTION = "Which dock is free for the evening lorry?"
"""Asked of a route whose first targets fail; once more, the answer comes from the cache."""

USD = 1_000_000_000
HOUR_NS = 3_600_000_000_000
QUESTIONS = (
    "How soon must a near miss be reported to the control room?",
    "How many days of paid annual leave does a full-time employee get?",
    "How often does the incident commander send a status update?",
    "For how long are temperature records for medicines kept?",
    "When does a red alarm start in the cold store?",
    "When do the grey Oakmere fuel cards stop working?",
    "Who releases blocked goods, and how fast?",
)

PROJECT = """
project: handbook
knowledge:
  handbook: {paths: [knowledge/]}
prompts:
  answer: prompts/answer.md
policies:
  careful: policies/careful.yaml
apps:
  handbook-bot:
    prompt: answer
    model: local/small
    corpus: handbook
    policy: careful
    retrieval: {top_k: %d}
    generation: {max_tokens: %d}
"""


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))


class SmallModel:
    """Says the passages' sentence that shares most words with the question, then one sentence of its own."""

    def __init__(self, invents: bool, pause_s: float = 0.0, name: str = "local") -> None:
        self.name = name
        self._invents = invents
        self._pause_s = pause_s

    supports: frozenset[Capability] = ALL
    wire_format: WireFormat | None = None

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s))

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        asked = words_of(call.question or call.messages[-1].content)
        if "fail" in asked:
            raise ConnectionError("the engine went away")
        said = [
            (len(asked & words_of(s)), s.strip())
            for p in call.passages
            for s in re.findall(r"[^.\n|]+\.", p.text)
        ]
        best = max(said, default=(0, "I have no sources to answer from."), key=lambda pair: pair[0])[1]
        for word in re.findall(r"\S+\s*", best + " "):
            await asyncio.sleep(self._pause_s)
            yield Delta(text=word)
        if self._invents:
            yield Delta(text="Every ferry also carries a purple elephant on board.")
        yield Delta(finish_reason="stop", usage=Usage(512, 48))

    async def close(self) -> None: ...


class BrokenModel:
    """Cannot be reached, or refuses the key."""

    supports: frozenset[Capability] = frozenset({"tools", "images", "temperature", "stop", "seed"})
    wire_format: WireFormat | None = None

    def __init__(self, name: str, error: type[ProviderError], status: int | None = None) -> None:
        self.name = name
        self._error, self._status = error, status

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        raise self._error(
            f"{self.name} did not take the call.", provider=self.name, upstream_status=self._status
        )

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        await self.complete(call, deadline_s)
        yield Delta()

    async def close(self) -> None: ...


class WordSearch:
    """Passages of a snapshot by shared words."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def search(
        self,
        snapshot_id: str,
        query: str,
        settings: RetrievalSettings,
        groups: AbstractSet[str] = frozenset(),
    ) -> Retrieved:
        asked = words_of(query)
        scored = [
            (len(asked & words_of(c.text)) / max(1, len(asked)), c) for c in self._library.chunks(snapshot_id)
        ]
        best = sorted(scored, key=lambda pair: -pair[0])[: settings.top_k]
        passages = []
        for number, (score, chunk) in enumerate(best, 1):
            version = self._library.version(chunk.version_id)
            passages.append(
                Passage(
                    number, chunk.id, version.id, version.uri, version.title, version.number, chunk.start,
                    chunk.end, chunk.page, chunk.heading_path, chunk.text, score, {"words": score},
                )
            )  # fmt: skip
        return Retrieved(snapshot_id, tuple(passages), best[0][0] if best else 0.0)


@dataclass
class ModelList:
    """Stands for the catalogue: plain models, and routes over them."""

    targets: dict[str, Target]
    routes: dict[str, Route] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Names that stand for nothing now, and why."""

    def route(self, name: str) -> Route:
        if name in self.broken:
            raise ConfigError(self.broken[name])
        if name in self.routes:
            return self.routes[name]
        if name not in self.targets:
            raise UnknownModel(name, self.targets)
        return Route(name, "weighted", (RouteTarget(self.targets[name]),))

    def names(self) -> list[ModelInfo]:
        found = [ModelInfo(r.name, "route", None, None, f"{r.policy} route") for r in self.routes.values()]
        for name, t in self.targets.items():
            found.append(ModelInfo(name, name.split("/")[0], t.price, t.context_tokens, "for the tests"))
        return found + [ModelInfo(n, n.split("/")[0], None, None, "for the tests") for n in self.broken]


@dataclass
class SinkTo:
    """Records straight into the store: no drain to wait for."""

    store: TraceStore
    last: list[Span] = field(default_factory=list)

    def record(self, spans: list[Span]) -> None:
        self.last = spans
        self.store.ingest(spans)

    def flush(self) -> None: ...


@dataclass
class World:
    """A filled Mainstay."""

    services: Services
    app: FastAPI
    actor: Identity
    sink: SinkTo
    folder: Path

    def ask(self, model: str, question: str) -> str:
        """Ask through the real pipeline; the trace id."""

        async def run() -> None:
            call = Call(
                ChatRequest(model, ChatCall("", (ChatMessage("user", question),))),
                self.actor,
                trace_id=new_trace_id(),
            )
            with suppress(ConnectionError):
                await ask(call, self.services.deps)

        _in_a_thread(run())
        return self.sink.last[0].trace_id

    def again(self, hours_ago: float, slower: float = 1.0) -> None:
        """The last trace once more, that long ago: its own spans, moved."""
        trace_id, first = f"{new_trace_id()}", self.sink.last[0].start_ns
        moved = []
        for span in self.sink.last:
            start = first + round((span.start_ns - first) * slower) - round(hours_ago * HOUR_NS)
            end = start + round((span.end_ns - span.start_ns) * slower)
            attributes = {
                k: v * slower if k == "mainstay.ttft_ms" and isinstance(v, float) else v
                for k, v in span.attributes.items()
            }
            moved.append(replace(span, trace_id=trace_id, start_ns=start, end_ns=end, attributes=attributes))
        self.services.traces.ingest(moved)


def build_world(folder: Path) -> World:
    """The whole application on an empty data folder, its model and search replaced by the small ones."""
    settings = load_settings({"data_dir": folder / "data", "models_dir": folder / "models"}, {}, folder)
    built = build_services(settings)
    sink = SinkTo(built.traces)
    free = Price(0.0, 0.0, 0.0, "local", "2026-11-24")
    paid = Price(150.0, 600.0, 75.0, "test", "2026-11-24")
    models = ModelList(
        {
            "local/small": Target("local/small", SmallModel(True), "small", free, 2048, 512),
            "local/extractive": Target("local/extractive", SmallModel(False), "extractive", free, None, None),
            "acme/chat": Target("acme/chat", SmallModel(False, name="acme"), "chat", paid, 128_000, 1024),
        },
        broken={"initech/legacy": "The variable INITECH_KEY is not set. Set it where Mainstay runs."},
    )
    down = BrokenModel("globex", ProviderUnreachable)
    unpaid = BrokenModel("globex", ProviderAuthFailed, 401)
    globex = [
        Target("globex/large", unpaid, "large-2", None, 200_000, 8192, credential="key 1"),
        Target("globex/large", down, "large-2", None, 200_000, 8192, credential="key 2"),
    ]
    models.targets["globex/large"] = globex[1]
    both = (*(RouteTarget(t, 1.0) for t in globex), RouteTarget(models.targets["acme/chat"], 2.0))
    models.routes["fast"] = Route("fast", "ordered", both, attempts_per_target_max=1, cache_ttl_s=600)
    shared = (RouteTarget(models.targets["acme/chat"], 3.0), RouteTarget(models.targets["local/small"], 1.0))
    models.routes["shared"] = Route(
        "shared", "weighted", shared, sticky=True, first_token_timeout_s=5, context_fallback="acme/chat"
    )
    deps = replace(
        built.deps,
        models=models,
        dispatcher=Dispatcher(Router(), models.route),
        retriever=WordSearch(built.library),
        sink=sink,
    )
    services = replace(built, deps=deps, catalog=models)  # type: ignore[arg-type]
    return World(services, build_control_app(services), local_identity(), sink, folder)


def add_people(world: World) -> None:
    users = world.services.users
    users.create(world.actor, "ada@example.org", "Ada Lindqvist", "admin", PASSWORD)
    users.create(world.actor, "dev@example.org", "Devi Rao", "developer", PASSWORD)
    users.create(world.actor, "vic@example.org", "Vic Moreau", "viewer", PASSWORD)


def add_app(world: World) -> None:
    """Two snapshots of the handbook, two releases of the bot: the second with another prompt and policy."""
    project_dir = world.folder / "project"
    (project_dir / "knowledge").mkdir(parents=True)
    for name in DOCUMENTS:
        shutil.copy(EXAMPLE / "knowledge" / name, project_dir / "knowledge" / name)
    for name in ("prompts", "policies"):
        shutil.copytree(EXAMPLE / name, project_dir / name)
    _release(world, project_dir, (4, 96), "the handbook as it was handed over")
    manual = project_dir / "knowledge" / "cold-chain.md"
    manual.write_text(manual.read_text().replace("every 2 minutes", "every minute"))
    shutil.copy(project_dir / "prompts" / "answer-v2.md", project_dir / "prompts" / "answer.md")
    _release(world, project_dir, (5, 128), "a clearer prompt, and the new cold chain manual")
    world.services.delivery.promote(
        world.actor, "handbook-bot", "production", 2, "evaluated better on questions"
    )
    world.services.refresher.refresh()


def _release(world: World, project_dir: Path, numbers: tuple[int, int], note: str) -> None:
    (project_dir / "mainstay.yaml").write_text(PROJECT % numbers)
    report = world.services.library.sync(world.actor, "handbook", FolderSource((project_dir / "knowledge",)))
    project = load_project(project_dir / "mainstay.yaml")
    world.services.delivery.apply(world.actor, project, {"handbook": report.snapshot.id}, note)


def add_traffic(world: World) -> None:
    """Two days of requests: questions to both releases, plain calls, one that failed, one with a card number."""
    for index, question in enumerate(QUESTIONS):
        world.ask("handbook-bot" if index % 3 else "handbook-bot@r1", question)
        for hour in range(index % 3, 24, 2 + index % 4):
            world.again(hour + 0.05 * index, slower=1 + (hour * 7 + index * 3) % 5)
        for hour in range(26, 46, 3 + index % 3):
            world.again(hour + 0.05 * index, slower=1 + (hour * 5 + index) % 3)
    world.ask("acme/chat", "Say good morning to the night shift.")
    for hour in (1, 2, 5, 9, 14, 30, 55, 80, 130):
        world.again(hour, slower=3)
    world.ask("fast", FALLBACK_QUESTION)
    world.again(4)
    world.ask("fast", FALLBACK_QUESTION)
    world.ask("local/small", "Please fail now.")
    world.again(3)
    world.ask(
        "handbook-bot", "My card is 4111 1111 1111 1111; when are temperature records for food deleted?"
    )
    world.ask("handbook-bot", QUESTIONS[0])


def add_keys(world: World) -> None:
    keys, parts = world.services.keys, world.services
    team = parts.teams.create(world.actor, "support")
    project = parts.projects.create(world.actor, "web shop", team.id)
    own = Limits(
        requests_per_minute=60, budgets=(Budget(25 * USD, "month"), Budget(20 * USD, "month", False))
    )
    shop, _ = keys.create(
        world.actor, "web shop", models=("handbook-bot",), limits=own, project_id=project.id
    )
    of_team = Limits(
        tokens_per_minute=100_000, budgets=(Budget(500 * USD, "month"), Budget(30 * USD, "week"))
    )
    parts.limits.set(world.actor, "team", team.id, of_team)
    parts.limits.set(world.actor, "app", "handbook-bot", Limits(concurrent_requests=8))
    spend(world, 21_100_000_000, LimitScope("key", shop.id, shop.name, own), team_scope(team, of_team))
    day = Limits(budgets=(Budget(2 * USD, "day"),))
    keys.create(world.actor, "night report", role="viewer", limits=day)
    old, _ = keys.create(world.actor, "old notebook")
    keys.revoke(world.actor, old.id)


def team_scope(team: Team, limits: Limits) -> LimitScope:
    return LimitScope("team", team.id, team.name, limits)


def spend(world: World, nusd: int, *scopes: LimitScope) -> None:
    """As a request that falls under these scopes does."""

    async def run() -> None:
        limiter = world.services.deps.limiter
        limiter.settle(await limiter.reserve(scopes, Ask(0, nusd, 0)), nusd, 0)

    _in_a_thread(run())


def add_evaluations(world: World) -> None:
    """Both releases on the first of the example's questions."""
    cases = [c for c in load_dataset(EXAMPLE / "datasets" / "questions.jsonl") if c.kind != "two_passages"]
    for target in ("handbook-bot@r1", "handbook-bot@r2"):
        _in_a_thread(
            evaluate_app(
                world.services, world.actor, "questions", cases[:6] + cases[-3:], target, lambda done: None
            )
        )


def _in_a_thread(work: Coroutine[Any, Any, Any]) -> None:
    """In a thread of its own: this one may be running Playwright's loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@contextmanager
def full_world(folder: Path) -> Iterator[World]:
    world = build_world(folder)
    add_people(world)
    add_app(world)
    add_keys(world)
    add_evaluations(world)
    add_traffic(world)
    yield world
    close_services(world.services)


class Server:
    """The application on a free port of this host, in a thread."""

    def __init__(self, app: FastAPI) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return html.unescape(found[1])


def post(client: TestClient, path: str, **fields: str) -> object:
    """Post a form as the page would, with its token."""
    return client.post(path, data={"csrf": csrf_of(client.get("/help").text), **fields})


# -- the choke point -----------------------------------------------------------------------------------
