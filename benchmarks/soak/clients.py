"""The load: kinds of requests, each with what may come of it. What comes otherwise is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp

from benchmarks.soak.mock import ARGUMENTS, TEXT

IN_FLIGHT_MAX = 200
TOLD_MAX = 40
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
FAILED = frozenset({500, 502, 503, 504})
QUOTA = frozenset({"insufficient_quota", "request_exceeds_budget", "budget_in_flight"})


@dataclass(frozen=True, slots=True)
class Kind:
    """`share` of the load. `statuses` besides 200 that are as they should be; `codes` those errors may have."""

    share: float
    key: str
    model: str
    marker: str = "say"
    stream: bool = False
    tools: bool = False
    hangs_up: bool = False
    whole: bool = True
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] | None = None


KINDS: Mapping[str, Kind] = {
    "plain": Kind(24, "steady", "steady"),
    "stream": Kind(22, "steady", "steady", stream=True),
    "tools": Kind(6, "steady", "steady", "tools", tools=True),
    "tools_stream": Kind(6, "steady", "steady", "tools", stream=True, tools=True),
    "cached": Kind(10, "steady", "cached"),
    "cached_stream": Kind(4, "steady", "cached", stream=True),
    "app": Kind(5, "steady", "bot", stream=True),
    "once": Kind(2, "rough", "steady", "once"),
    "hang_up": Kind(6, "rough", "steady", "long", stream=True, hangs_up=True),
    "hang_up_early": Kind(3, "rough", "steady", hangs_up=True),
    "limited": Kind(
        3, "limited", "steady", statuses=frozenset({429}), codes=frozenset({"rate_limit_exceeded"})
    ),
    "narrow": Kind(
        2,
        "narrow",
        "steady",
        stream=True,
        statuses=frozenset({429}),
        codes=frozenset({"rate_limit_exceeded"}),
    ),
    "poor": Kind(2, "poor", "steady", statuses=frozenset({429, 402, 403, 400}), codes=QUOTA),
    "fail500": Kind(1, "rough", "failing", "fail500", whole=False, statuses=FAILED),
    "fail429": Kind(1, "rough", "failing", "fail429", whole=False, statuses=FAILED | {429}),
    "refuse400": Kind(1, "rough", "failing", "refuse400", whole=False, statuses=FAILED | {400}),
    "cut": Kind(1, "rough", "failing", "cut", whole=False, statuses=FAILED),
    "cut_stream": Kind(1, "rough", "failing", "cut", stream=True, whole=False, statuses=FAILED),
}
CACHED_QUESTIONS = 50


@dataclass(slots=True)
class Told:
    """What clients saw: outcomes by kind, what was unexplained, costs by key, traces that must be on record."""

    outcomes: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    unexplained_count: int = 0
    cost_nusd: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    traces: set[str] = field(default_factory=set)
    hits: int = 0

    def wonder(self, what: str) -> None:
        self.unexplained_count += 1
        if len(self.unexplained) < TOLD_MAX:
            self.unexplained.append(what)


@dataclass(slots=True)
class Clients:
    """Sends requests at `per_s` until told to stop; a late answer does not hold back the next request."""

    session: aiohttp.ClientSession
    url: str
    tokens: Mapping[str, str]
    per_s: float
    told: Told = field(default_factory=Told)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _source: random.Random = field(default_factory=lambda: random.Random(7))
    _in_flight: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end, names = loop.time() + seconds, list(KINDS)
        shares = [KINDS[name].share for name in names]
        while (now := loop.time()) < end:
            if len(self._in_flight) < IN_FLIGHT_MAX:
                task = asyncio.create_task(self._one(self._source.choices(names, shares)[0]))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
            else:
                self.told.outcomes["held back"] += 1
            await asyncio.sleep(max(0.0, self._source.expovariate(self.per_s) - (loop.time() - now)))
        await asyncio.gather(*self._in_flight)

    async def _one(self, name: str) -> None:
        kind = KINDS[name]
        try:
            async with asyncio.timeout(60):
                outcome = await self._ask(name, kind)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = "lost"
            self.told.wonder(f"{name}: {type(error).__name__} {error}")
        self.told.outcomes[f"{name} {outcome}"] += 1

    async def _ask(self, name: str, kind: Kind) -> str:
        headers = {"authorization": f"Bearer {self.tokens[kind.key]}"}
        async with self.session.post(self.url, json=self._body(kind), headers=headers) as reply:
            if kind.hangs_up:
                if kind.stream:
                    await reply.content.readany()
                reply.close()
                return "hung up"
            if reply.status != 200:
                return await self._refused(name, kind, reply)
            if kind.stream:
                return await self._read_stream(name, kind, reply)
            return self._read_whole(name, kind, reply, await reply.json())

    def _body(self, kind: Kind) -> dict[str, Any]:
        number = next(self._numbers)
        if kind.model == "cached":
            number = self._source.randrange(CACHED_QUESTIONS)
        body: dict[str, Any] = {"model": kind.model, "max_tokens": 64, "stream": kind.stream}
        body["messages"] = [{"role": "user", "content": f"[{kind.marker}] question {number:x} of a client"}]
        if kind.tools:
            body["tools"] = [{"type": "function", "function": WEATHER}]
        if kind.stream and number % 2:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _refused(self, name: str, kind: Kind, reply: aiohttp.ClientResponse) -> str:
        text = await reply.text()
        try:
            code = json.loads(text)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            code = None
        known = reply.status in kind.statuses and (kind.codes is None or code in kind.codes)
        if not known or not code:
            self.told.wonder(f"{name}: {reply.status} {text[:200]}")
        return f"{reply.status} {code}"

    async def _read_stream(self, name: str, kind: Kind, reply: aiohttp.ClientResponse) -> str:
        told = self.told
        told.traces.add(reply.headers["x-mainstay-trace-id"])
        text, arguments, ours, done, failed = "", defaultdict(str), None, False, False
        async for line in _lines(reply):
            data = line.removeprefix(b"data: ").strip()
            if not line.startswith(b"data: "):
                continue
            if data == b"[DONE]":
                done = True
                continue
            event = json.loads(data)
            failed = failed or "error" in event
            ours = event.get("mainstay") or ours
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls") or ():
                    arguments[call["index"]] += call["function"].get("arguments") or ""
        if failed and not done and not kind.whole:
            return "error in the stream"
        if not done or failed or not _as_said(kind, text, list(arguments.values())):
            told.wonder(f"{name}: a stream ended with done={done}, error={failed}, {len(text)} characters")
            return "incomplete"
        return self._keep(name, kind, ours)

    def _read_whole(self, name: str, kind: Kind, reply: aiohttp.ClientResponse, body: dict[str, Any]) -> str:
        self.told.traces.add(reply.headers["x-mainstay-trace-id"])
        message = body["choices"][0]["message"]
        arguments = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
        if not _as_said(kind, message["content"] or "", arguments):
            self.told.wonder(f"{name}: another answer: {str(message)[:200]}")
            return "altered"
        said = reply.headers.get("x-mainstay-cost-usd")
        if said is not None and int(Decimal(said) * 10**9) != body["mainstay"]["cost_nusd"]:
            self.told.wonder(f"{name}: the header says ${said}, the body {body['mainstay']['cost_nusd']} n$")
        return self._keep(name, kind, body["mainstay"])

    def _keep(self, name: str, kind: Kind, ours: dict[str, Any] | None) -> str:
        cost = None if ours is None else ours.get("cost_nusd")
        if ours is None or cost is None:
            self.told.wonder(f"{name}: an answer without its cost")
            return "no cost"
        self.told.cost_nusd[kind.key] += cost
        self.told.hits += ours["cache"] == "hit"
        return "answered"


async def _lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """A stream that is not whole ends without the end that HTTP knows: what matters is what it said until then."""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async for line in reply.content:
            yield line


def _as_said(kind: Kind, text: str, arguments: list[str]) -> bool:
    """Whether the answer is word for word what the mock said."""
    if kind.tools:
        return arguments == [ARGUMENTS] * 2
    return text.strip() == TEXT.strip()
