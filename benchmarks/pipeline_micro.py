"""What one request costs inside the gateway, without a network: `python -m benchmarks.pipeline_micro`.

An ASGI call goes through the whole gateway, as the gateway bench sets it up (every feature on), to a provider
that answers at once. CPU time is given in microseconds and in units of a calibration loop that runs right
before and after it, so that a regression shows on a machine whose speed varies. What is recorded is written by
the gateway's own threads and counted: it is part of what a request costs.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import hashlib
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks import gateway_contender
from benchmarks.measure import Figure, figure, show, write
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.models.capabilities import ALL
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Capability, ChatCall, Choice, Completion, Delta, Usage, WireFormat
from mainstay.services import Services, build_services, close_services, running
from mainstay.serving import Gateway

CHUNKS = 100
WORD = " word"
RESULTS = Path(__file__).parent / "results.json"


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "mock-model"}
    return orjson.dumps({**head, "choices": [choice]})


USAGE = Usage(211, CHUNKS)
TEXT = WORD * CHUNKS
WHOLE = orjson.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "mock-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 211, "completion_tokens": CHUNKS, "total_tokens": 211 + CHUNKS},
    }
)
COMPLETION = Completion((Choice(text=TEXT),), USAGE, "mock-model", WHOLE)
DELTA = Delta(text=WORD, model="mock-model", raw=_event({"content": WORD}))
LAST = Delta(finish_reason="stop", usage=USAGE, raw=_event({}, "stop"))
READ_DELTA, READ_LAST = replace(DELTA, raw=None), replace(LAST, raw=None)


@PROVIDER_KINDS.register("instant")
class Instant:
    """Answers at once, in OpenAI's wire format."""

    supports: frozenset[Capability] = ALL
    wire_format: WireFormat | None = "openai.chat"

    def __init__(self, settings: HttpProviderSettings) -> None:
        self.name = settings.name

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return COMPLETION

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        for _ in range(CHUNKS):
            yield DELTA if call.relay else READ_DELTA
        yield LAST if call.relay else READ_LAST

    async def close(self) -> None: ...


@dataclass(slots=True)
class Client:
    """Sends one request after the other, each with text of its own."""

    gateway: Gateway
    headers: list[tuple[bytes, bytes]]
    number: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, stream: bool) -> None:
        self.number += 1
        body = _body(self.number, stream)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            self.sent.append(message)

        self.sent.clear()
        scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "query_string": b""}
        await self.gateway({**scope, "headers": self.headers}, receive, send)

    def check(self, stream: bool) -> None:
        """Raises RuntimeError unless the last answer was whole."""
        body = b"".join(m.get("body", b"") for m in self.sent)
        words = body.count(WORD.encode())
        if self.sent[0]["status"] != 200 or words != CHUNKS or (stream and b"[DONE]" not in body):
            raise RuntimeError(f"{self.sent[0]['status']}: {words} words; {body[:300]!r}")


CONTEXT = (
    "The customer ordered two items on Monday; the first was shipped on Tuesday, the second is on back-order until "
    "the end of the month. A full refund is possible until goods ship, and a credit of ten percent when they are "
    "late by more than two weeks. "
)


def _body(number: int, stream: bool) -> bytes:
    """About 1 KB, as a support assistant would send it."""
    messages = [
        {"role": "system", "content": "You are a careful assistant. " + CONTEXT},
        {"role": "user", "content": f"Question {number:x}: {CONTEXT * 2}Can I cancel only the second item?"},
    ]
    body: dict[str, Any] = {
        "model": "mock-model",
        "messages": messages,
        "temperature": 0.2,
        "max_tokens": 400,
    }
    return orjson.dumps({**body, "stream": True} if stream else body)


@contextmanager
def served(folder: Path) -> Iterator[tuple[Services, str]]:
    """The gateway's parts on the contender's project, and a token."""
    headers = folder / "headers"
    gateway_contender.prepare(folder / "project", "http://127.0.0.1:9", headers)
    project = folder / "project" / "mainstay.yaml"
    project.write_text(project.read_text().replace("kind: openai", "kind: instant"))
    os.environ.update(gateway_contender.environment(folder / "project"))
    before = Path.cwd()
    os.chdir(project.parent)
    services = build_services(load_settings(), load_project(project), role="gateway")
    try:
        yield services, headers.read_text().removeprefix("authorization: ").strip()
    finally:
        close_services(services)
        os.chdir(before)


def calibration_us() -> float:
    """CPU of a fixed piece of work: interpreter, JSON and hashing, as a request is made of."""
    started = time.process_time()
    for n in range(200):
        value = json.loads(json.dumps({"a": [n] * 50, "b": "x" * 200}))
        hashlib.sha256(str(value).encode()).digest()
        sum(i & 7 for i in range(400))
    return (time.process_time() - started) / 200 * 1e6


async def cpu_us(ask: Callable[[], Awaitable[None]], count: int) -> tuple[float, float]:
    """CPU a request, in microseconds and in units of the calibration loop."""
    before = calibration_us()
    started = time.process_time()
    for _ in range(count):
        await ask()
    used = (time.process_time() - started) / count * 1e6
    return used, used / ((before + calibration_us()) / 2)


async def measure(
    services: Services, token: str, count: int, rounds: int, profile: str | None
) -> list[Figure]:
    headers = [(b"host", b"x"), (b"authorization", token.encode()), (b"content-type", b"application/json")]
    client = Client(services.gateway, headers)
    async with running(services):
        for stream in (False, True):
            for _ in range(30):
                await client.ask(stream)
                client.check(stream)
        if profile is not None:
            await _profile(client, profile == "stream", count)
        plain = [await cpu_us(lambda: client.ask(stream=False), count) for _ in range(rounds)]
        streams = [await cpu_us(lambda: client.ask(stream=True), max(1, count // 10)) for _ in range(rounds)]
    return [*_figures("micro_request", plain, 1), *_figures("micro_delta", streams, CHUNKS)]


def _figures(name: str, rounds: list[tuple[float, float]], parts: int) -> list[Figure]:
    """The least of the rounds: what disturbs a round only adds."""
    used, relative = min(us for us, _ in rounds), min(relative for _, relative in rounds)
    spread = f"rounds: {', '.join(f'{us / parts:.1f}' for us, _ in rounds)} µs"
    median = statistics.median(relative for _, relative in rounds)
    return [
        figure(f"{name}_cpu", used / parts, "µs", note=spread),
        figure(
            f"{name}_relative",
            relative / parts,
            "×",
            note=f"of a calibration loop; middle {median / parts:.3f}",
        ),
    ]


async def _profile(client: Client, stream: bool, count: int) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(count // (10 if stream else 1)):
        await client.ask(stream)
    profile.disable()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline_micro", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="requests a round; streams: a tenth")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", choices=["plain", "stream"], help="print where the time goes")
    parser.add_argument("--dry", action="store_true", help="leave results.json as it is")
    a = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="mainstay-micro-") as folder,
        served(Path(folder)) as (services, token),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(measure(services, token, a.count, a.rounds, a.profile))
    show(found)
    if not a.dry:
        write(found, RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
