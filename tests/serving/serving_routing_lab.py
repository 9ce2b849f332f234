"""A laboratory for routing: a loop whose time jumps to the next timer, and providers that follow a script."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mainstay.models.capabilities import ALL
from mainstay.models.collect import collect
from mainstay.models.errors import ProviderError, UnknownModel
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    Price,
    Route,
    RoutePolicy,
    RouteTarget,
    Target,
    Usage,
    WireFormat,
)
from mainstay.serving.routing import Attempt, Dispatcher, Plan, Router

T = TypeVar("T")
P = ParamSpec("P")
Step = str | float | Delta | Exception
"""A text, a silence in seconds, a delta as it is, or a failure."""
STOP = Delta(finish_reason="stop", usage=Usage(3, 1))
FOREVER = 1e9


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nobody waits in real time: when nothing is ready, the clock goes to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 1000.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            timers = [h.when() for h in self._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, min(timers, default=self._now_s))
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test on such a loop."""

    @wraps(test)
    def in_turn(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return in_turn


def now() -> float:
    return asyncio.get_running_loop().time()


class Scripted:
    """Plays one script a call, then answers `hello`. Counts calls, and hang-ups in the middle."""

    wire_format: WireFormat | None = None

    def __init__(self, name: str = "acme", supports: frozenset[Capability] = ALL) -> None:
        self.name = name
        self.supports = supports
        self.scripts: list[Sequence[Step]] = []
        self.default: Sequence[Step] = ("hello", STOP)
        self.calls: list[str] = []
        self.called_s: list[float] = []
        self.deadlines_s: list[float] = []
        self.hung_up_s: list[float] = []

    def plays(self, *scripts: Sequence[Step] | Exception) -> Scripted:
        self.scripts.extend((s,) if isinstance(s, Exception) else s for s in scripts)
        return self

    def always(self, *steps: Step) -> Scripted:
        self.default = steps
        return self

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        self.calls.append(call.model)
        self.called_s.append(now())
        self.deadlines_s.append(deadline_s)
        ended = False
        try:
            for step in self.scripts.pop(0) if self.scripts else self.default:
                if isinstance(step, Exception):
                    ended = True
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield Delta(text=step) if isinstance(step, str) else step
            ended = True
        finally:
            if not ended:
                self.hung_up_s.append(now())

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s))

    async def close(self) -> None: ...


def target(
    provider: Scripted,
    model: str = "m",
    *,
    context: int | None = None,
    usd: float | None = None,
    credential: str | None = None,
    supports: frozenset[Capability] | None = None,
) -> Target:
    """`usd`: dollars per million tokens, in and out."""
    price = None if usd is None else Price(usd * 1000, usd * 1000, usd * 1000, "test", "2026-01-01")
    return Target(f"{provider.name}/{model}", provider, model, price, context, None, supports, credential)


def route(*targets: Target | tuple[Target, float], policy: RoutePolicy = "ordered", **fields: Any) -> Route:
    weighed = [t if isinstance(t, tuple) else (t, 1.0) for t in targets]
    return Route("r", policy, tuple(RouteTarget(t, w) for t, w in weighed), **fields)


class Log:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.begun: list[Attempt] = []
        self.over: list[Attempt] = []

    def began(self, attempt: Attempt, call: ChatCall) -> None:
        self.begun.append(attempt)

    def ended(self, attempt: Attempt) -> None:
        assert attempt not in self.over
        self.over.append(attempt)


class Lab:
    """A dispatcher of its own, with chance seeded; `routes` are what a context fallback resolves to."""

    def __init__(self, routes: dict[str, Route] | None = None, seed: int = 1) -> None:
        self.router = Router(chance=random.Random(seed))
        self.routes = routes or {}
        self.dispatcher = Dispatcher(self.router, self.resolve)
        self.log = Log()
        self.plan: Plan | None = None
        self.all_plans: list[Plan] = []
        self.prepared: list[str] = []
        self.refuse: Callable[[Target], Exception | None] = lambda target: None

    def resolve(self, name: str) -> Route:
        if name not in self.routes:
            raise UnknownModel(name, self.routes)
        return self.routes[name]

    async def prepare(self, target: Target) -> ChatCall:
        self.prepared.append(target.public_name)
        if (refusal := self.refuse(target)) is not None:
            raise refusal
        return ChatCall(target.model, (ChatMessage("user", "hi"),))

    def plans(self, given: Route, deadline_s: float = 100.0, **fields: Any) -> Plan:
        fields = {"needs": frozenset(), "input_tokens": 10, **fields}
        self.plan = Plan(given, now() + deadline_s, **fields)
        self.all_plans.append(self.plan)
        return self.plan

    async def ask(self, given: Route, deadline_s: float = 100.0, **fields: Any) -> str:
        """Stream an answer and join its text."""
        deltas = self.dispatcher.stream(self.plans(given, deadline_s, **fields), self.prepare, self.log)
        async with aclosing(deltas) as stream:
            return "".join([delta.text async for delta in stream])

    async def complete(self, given: Route, deadline_s: float = 100.0, **fields: Any) -> str:
        plan = self.plans(given, deadline_s, **fields)
        return (await self.dispatcher.complete(plan, self.prepare, self.log)).choices[0].text

    def states(self) -> dict[str, str]:
        return {view.public_name: view.availability for view in self.router.breakers.states(now())}

    def in_flight(self) -> int:
        return sum(view.in_flight for view in self.router.breakers.states(now()))


def failure(
    kind: type[ProviderError] = ProviderError, status: int | None = None, wait: float | None = None
) -> ProviderError:
    return kind("no", provider="acme", upstream_status=status, retry_after_s=wait)
