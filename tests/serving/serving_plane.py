"""A data plane on small real parts: a provider that plays scripted deltas, a tiny corpus, a real guard."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mainstay.delivery.types import GenerationSettings, Manifest, Release, RunnableRelease
from mainstay.govern import scopes_of
from mainstay.govern.types import ApiKey, Budget, BudgetWindow, Identity, Limits
from mainstay.guard import Guard
from mainstay.guard.types import CheckRule, GroundingRule, Policy
from mainstay.models import UnknownModel
from mainstay.models.capabilities import ALL
from mainstay.models.collect import collect
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    Price,
    Route,
    RouteTarget,
    Target,
    Usage,
    WireFormat,
)
from mainstay.observe.types import Span
from mainstay.retrieval import PassageSources
from mainstay.retrieval.types import Passage, RetrievalSettings, Retrieved, Support
from mainstay.serving.cache import ExactCache
from mainstay.serving.deps import Deps
from mainstay.serving.gateway import Gateway
from mainstay.serving.limits import BudgetState, MemoryLimiter
from mainstay.serving.routing.dispatch import Dispatcher
from mainstay.serving.routing.policies import Router
from mainstay.serving.snapshot import ServingSnapshot, SnapshotHolder

CHECK_IN = "Cars must check in at least 30 minutes before departure."
NEAR_MISS = "A near miss must be reported to the control room within 24 hours."
HANDBOOK = f"{CHECK_IN} {NEAR_MISS} The master has the last word on whether a ship leaves port."
QUESTION = "When must cars check in?"
CHEAP = Price(100.0, 400.0, 50.0, "test", "2026-11-24")
FREE = Price(0.0, 0.0, 0.0, "local", "2026-11-24")
Step = Delta | Exception | asyncio.Event


class Scripted:
    """A chat provider that plays scripts in turn; an Event in one is waited for. The last script repeats."""

    supports: frozenset[Capability] = ALL
    wire_format: WireFormat | None = "openai.chat"

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.scripts: list[list[Step]] = []
        self.calls: list[ChatCall] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    def says(self, *words: str, usage: Usage | None = None, finish: str | None = "stop") -> None:
        steps: list[Step] = [Delta(text=word) for word in words]
        if finish is not None:
            steps.append(Delta(finish_reason=finish, usage=usage or Usage(10, 5)))  # type: ignore[arg-type]
        self.scripts.append(steps)

    def plays(self, *steps: Step) -> None:
        self.scripts.append(list(steps))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s), self.name)

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        self.calls.append(call)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.started.set()
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def close(self) -> None: ...


class Extracts:
    """Says the sentences of the passages that share two words of four letters or more with the question."""

    name = "local"
    supports: frozenset[Capability] = frozenset({"temperature", "top_p", "seed"})
    wire_format: WireFormat | None = None

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s), self.name)

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        wanted = set(re.findall(r"\w{4,}", (call.question or "").lower()))
        for passage in call.passages:
            for sentence in re.findall(r"[^.]+\.", passage.text):
                if len(wanted & set(re.findall(r"\w{4,}", sentence.lower()))) >= 2:
                    yield Delta(text=f"{sentence.strip()} [{passage.number}] ")
        yield Delta(finish_reason="stop")

    async def close(self) -> None: ...


@dataclass
class Models:
    targets: dict[str, Target]

    routes: dict[str, Route] = field(default_factory=dict)

    def route(self, name: str) -> Route:
        if name in self.routes:
            return self.routes[name]
        if name not in self.targets:
            raise UnknownModel(name, self.targets)
        return Route(name, "weighted", (RouteTarget(self.targets[name]),), attempts_per_target_max=3)


class Corpus:
    """One document; each passage visible to everyone or to one group."""

    def __init__(self) -> None:
        self.texts = {"version_1": HANDBOOK}
        self.answerable = 0.9
        self.secret: tuple[str, str] | None = None
        self.searches = 0
        self.headings: tuple[str, ...] = ()

    def passage(self, number: int, version_id: str) -> Passage:
        text = self.texts[version_id]
        return Passage(
            number,
            f"chunk_{number}",
            version_id,
            "handbook.md",
            "Handbook",
            1,
            0,
            len(text),
            None,
            self.headings,
            text,
            1.0,
        )

    def search(
        self, snapshot_id: str, query: str, settings: RetrievalSettings, groups: Any = frozenset()
    ) -> Retrieved:
        self.searches += 1
        seen = [
            v for v in self.texts if self.secret is None or v != self.secret[1] or self.secret[0] in groups
        ]
        passages = tuple(self.passage(n, v) for n, v in enumerate(seen, 1))
        return Retrieved(snapshot_id, passages, self.answerable)


class SharedWords:
    """Supported when a source sentence holds at least four fifths of a sentence's words."""

    def support_in(self, sentence: str, ready: PassageSources) -> Support:
        words = set(re.findall(r"\w+", sentence.lower()))
        best = Support(0.0, False, None, None, None)
        for passage in ready.passages:
            for match in re.finditer(r"[^.\s][^.]*\.", passage.text):
                found = set(re.findall(r"\w+", match.group().lower()))
                score = len(words & found) / max(1, len(words))
                if score > best.score:
                    best = Support(
                        score,
                        score >= 0.8,
                        passage.number,
                        passage.start + match.start(),
                        passage.start + match.end(),
                    )
        return best


class Template:
    """A prompt that lists the passages and asks the question."""

    name = "answer"
    digest = "sha256:" + "1" * 64

    def render(self, variables: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
        listed = "\n".join(f"[{p['number']}] {p['text']}" for p in variables["passages"])
        history = [ChatMessage(m["role"], m["content"]) for m in variables["history"]]
        return (
            ChatMessage("system", f"Use only:\n{listed}"),
            *history,
            ChatMessage("user", variables["question"]),
        )


class Sink:
    """Keeps finished spans."""

    def __init__(self) -> None:
        self.traces: list[list[Span]] = []
        self.arrived = threading.Event()

    def record(self, spans: list[Span]) -> None:
        self.traces.append(spans)
        self.arrived.set()

    def span(self, name: str) -> Span:
        return next(s for s in self.traces[-1] if s.name == name)

    def names(self) -> list[str]:
        return [s.name for s in self.traces[-1]]


RULES = Policy(
    "strict",
    {
        "input": (CheckRule("pii", "mask"), CheckRule("injection", "block", 0.5)),
        "context": (CheckRule("injection", "drop", 0.5),),
        "output": (CheckRule("secrets", "block"), CheckRule("pii", "mask")),
    },
    GroundingRule(unsupported="remove", threshold=0.8),
)


def api_key(
    token: str = "ms-good",
    *,
    budget_nusd: int | None = None,
    budget_window: BudgetWindow = "month",
    requests_per_minute: int | None = None,
    **fields: Any,
) -> ApiKey:
    """A key with one hard budget and a request limit; or give `limits` as a whole."""
    budgets = () if budget_nusd is None else (Budget(budget_nusd, budget_window),)
    values: dict[str, Any] = {
        "models": None,
        "groups": frozenset(),
        "limits": Limits(requests_per_minute=requests_per_minute, budgets=budgets),
        "expires_at_us": None,
        "revoked_at_us": None,
        **fields,
    }
    return ApiKey(
        id=f"key_{token}",
        name=token,
        prefix=token[:4],
        token_hash=token,
        role="developer",
        created_at_us=0,
        **values,
    )


def runnable(
    app: str = "bot",
    number: int = 1,
    environment: str | None = "production",
    *,
    policy: Policy = RULES,
    model: str = "acme/small",
    corpus: str | None = "snapshot_1",
    answerable_min: float = 0.0,
    generation: GenerationSettings | None = None,
) -> RunnableRelease:
    settings = RetrievalSettings(answerable_min=answerable_min)
    generation = generation or GenerationSettings(max_tokens=64)
    manifest = Manifest(app, {}, settings, generation)
    release = Release(app, number, f"sha256:{number:064x}", manifest, "", 1_700_000_000_000_000, "test")
    return RunnableRelease(release, environment, Template(), model, corpus, policy, settings, generation)


@dataclass
class Plane:
    """A data plane and its parts, for a test to arrange."""

    model: Scripted
    corpus: Corpus
    sink: Sink
    deps: Deps
    waits_s: list[float] = field(default_factory=list)

    def knows(self, *keys: ApiKey) -> None:
        known = {k.token_hash: (k, Identity(k.id, k.name, "key", k.role, k.groups)) for k in keys}
        scopes = {k.id: scopes_of(k, {}, {}, {}, {}) for k in keys}
        self._swap(keys=known, key_scopes=scopes)

    def key(self, **fields: Any) -> ApiKey:
        """A key that is known, and no other."""
        key = api_key(**fields)
        self.knows(key)
        return key

    async def budget(self, key: ApiKey) -> BudgetState:
        """Where the key's only budget stands."""
        (state,) = await self.deps.limiter.states(scopes_of(key, {}, {}, {}, {}))
        return state

    def runs(self, *names_and_releases: tuple[str, RunnableRelease]) -> None:
        self._swap(runnables=dict(names_and_releases))

    def guards_models_with(self, policy: Policy) -> None:
        self._swap(default_policy=policy)

    def adds(self, name: str, target: Target) -> None:
        self.deps.models.targets[name] = target  # type: ignore[attr-defined]

    def _swap(self, **changes: Any) -> None:
        self.deps.snapshots.swap(replace(self.deps.snapshots.current, **changes))

    def gateway(self, **options: Any) -> Gateway:
        return Gateway(self.deps, lambda token: token, **options)


def build_plane() -> Plane:
    model, corpus, sink = Scripted(), Corpus(), Sink()
    targets = {
        "acme/small": Target("acme/small", model, "small", CHEAP, 4096, 1000),
        "acme/unpriced": Target("acme/unpriced", model, "unpriced", None, 4096, 1000),
        "local/extractive": Target("local/extractive", Extracts(), "extractive", FREE, None, None),
    }
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    models = Models(targets)
    deps = Deps(
        snapshots=SnapshotHolder(ServingSnapshot("snap-1", models=tuple(targets))),
        models=models,
        dispatcher=Dispatcher(Router(), models.route, sleep),
        retriever=corpus,
        scorer=SharedWords(),
        guard=Guard.load(),
        version_text=lambda version_id: corpus.texts[version_id],
        limiter=MemoryLimiter(),
        cache=ExactCache(),
        sink=sink,
    )
    built = Plane(model, corpus, sink, deps, waits)
    built.knows(api_key())
    built.runs(("bot", runnable()), ("bot@production", runnable()), ("bot@r1", runnable(environment=None)))
    return built
