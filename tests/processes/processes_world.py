"""Real Mainstay processes on a data folder of their own, before a local model server that answers to order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import httpx2 as httpx
from aiohttp import web

from mainstay.core.config import load_settings
from mainstay.core.database import read_change_counter
from mainstay.delivery import load_project
from mainstay.govern import SYSTEM
from mainstay.govern.types import UNLIMITED, Limits, Role
from mainstay.services import build_services, close_services, open_stores, publish

T = TypeVar("T")

PROJECT = """
project: processes
providers:
  old: {{kind: openai, base_url: {base_url}/old/v1, models: [m], price: {{input: 1, output: 2}}}}
  new: {{kind: openai, base_url: {base_url}/new/v1, models: [m], price: {{input: 1, output: 2}}}}
models:
  steady: {{provider: old, model: m}}
routes:
  moving: {{targets: [{target}/m]}}
prompts: {{answer: answer.md}}
apps:
  helper: {{prompt: answer, model: {target}/m}}
"""
PROMPT = """---
variables: {question: string}
---
# system
Answer in one sentence.

# user
{{ question }}
"""


class Upstream:
    """Speaks OpenAI chat completions in a thread of its own. The last message orders the answer, as JSON:

    `pieces` and `pace_s` of the stream, `input` and `output` tokens to report. The answer begins with the first part
    of the path that it was asked on.
    """

    def __enter__(self) -> Upstream:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self.base_url = self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> str:
        app = web.Application()
        app.router.add_post("/{name}/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        order = json.loads(body["messages"][-1]["content"])
        name, pieces = request.match_info["name"], order.get("pieces", 3)
        output = min(
            order.get("output", 5), body.get("max_tokens") or body.get("max_completion_tokens") or 10**9
        )
        usage = {"prompt_tokens": order.get("input", 7), "completion_tokens": output}
        usage["total_tokens"] = sum(usage.values())
        if not body.get("stream"):
            await asyncio.sleep(order.get("pace_s", 0) * pieces)
            message = {"role": "assistant", "content": name + " x" * pieces}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return web.json_response({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                                      "choices": choices, "usage": usage})  # fmt: skip
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in range(pieces):
            text = name if piece == 0 else " x"
            await response.write(_event({"index": 0, "delta": {"content": text}, "finish_reason": None}))
            await asyncio.sleep(order.get("pace_s", 0))
        await response.write(_event({"index": 0, "delta": {}, "finish_reason": "stop"}))
        await response.write(_event(None, usage=usage) + b"data: [DONE]\n\n")
        return response


def _event(choice: Mapping[str, Any] | None, **more: Any) -> bytes:
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**event, "choices": [choice] if choice else [], **more}).encode() + b"\n\n"


@dataclass
class Started:
    """A running `mainstay` command. `told` is the JSON it printed."""

    process: subprocess.Popen[bytes]
    log: Path
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        url: str = self.told.get("base_url") or self.told["web_ui"]
        return url.removesuffix("/v1")

    def end(self, number: int = signal.SIGTERM, within_s: float = 60) -> int:
        """The exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(within_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def said(self) -> str:
        return self.log.read_text()


class World:
    """One data folder and project, and the processes on it."""

    def __init__(self, folder: Path, upstream: Upstream, **environment: str) -> None:
        self.folder = folder
        self.upstream = upstream
        self.environment = {"MAINSTAY_DATA_DIR": str(folder / "data"), **environment}
        self._started: list[Started] = []
        folder.mkdir(exist_ok=True)
        self.project = folder / "mainstay.yaml"
        (folder / "answer.md").write_text(PROMPT)
        self.write_project("old")
        self.settings = load_settings({"data_dir": folder / "data"}, {}, folder)
        self.stores = open_stores(self.settings)

    def write_project(self, target: str, more_models: str = "") -> None:
        """`moving` and `helper` go to this target."""
        text = PROJECT.format(base_url=self.upstream.base_url, target=target)
        self.project.write_text(text.replace("routes:\n", f"{more_models}routes:\n"))

    def publish(self, promote: bool = False) -> None:
        """The project as it is now: a release of `helper` where something changed."""
        project = load_project(self.project)
        services = build_services(self.settings, project)
        publish(services, SYSTEM, project, promote=promote)
        close_services(services)

    def key(self, limits: Limits = UNLIMITED, role: Role = "viewer", name: str = "client") -> tuple[str, str]:
        """(token, id)."""
        key, token = self.stores.keys.create(SYSTEM, name, role=role, limits=limits)
        return token.reveal(), key.id

    def change_counter(self) -> int:
        return read_change_counter(self.stores.database)

    def revoke(self, key_id: str) -> None:
        self.stores.keys.revoke(SYSTEM, key_id)

    def run(self, *command: str, **environment: str) -> Started:
        """Start a command and do not wait for it."""
        log = self.folder / f"{command[0]}-{len(self._started)}.log"
        variables = {**os.environ, **self.environment, **environment}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mainstay", *command],
                cwd=self.folder, env=variables, stdout=subprocess.PIPE, stderr=file,
            )  # fmt: skip
        self._started.append(Started(process, log))
        return self._started[-1]

    def start(self, *command: str, **environment: str) -> Started:
        """Start a serving command on a free port, and wait until it says where it is."""
        started = self.run(*command, "--port", "0", "--json", **environment)
        assert started.process.stdout is not None
        text = ""
        for line in started.process.stdout:
            text += line.decode()
            try:
                started.told = json.loads(text)
            except json.JSONDecodeError:
                continue
            return started
        raise AssertionError(f"{command} did not start: {started.said()}")

    def close(self) -> None:
        for started in reversed(self._started):
            started.end(signal.SIGTERM)
            if started.process.stdout is not None:
                started.process.stdout.close()
        self.stores.database.close()


@contextmanager
def world(folder: Path, **environment: str) -> Iterator[World]:
    with Upstream() as upstream:
        made = World(folder, upstream, **environment)
        try:
            yield made
        finally:
            made.close()


@dataclass
class Answer:
    """`text` of a stream is its raw events; `error` is what broke the connection."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    error: Exception | None = None

    @property
    def complete(self) -> bool:
        return self.status == 200 and self.error is None and self.text.endswith("data: [DONE]\n\n")

    @property
    def code(self) -> str | None:
        found: str | None = json.loads(self.text)["error"]["code"]
        return found


async def ask(
    session: aiohttp.ClientSession,
    base_url: str,
    token: str,
    model: str = "steady",
    *,
    stream: bool = False,
    **order: Any,
) -> Answer:
    """One chat completion, ordered from the upstream. What goes wrong with the connection is told, not raised."""
    body = {
        "model": model, "messages": [{"role": "user", "content": json.dumps(order)}], "max_tokens": 50, "stream": stream,
    }  # fmt: skip
    url, headers = f"{base_url}/v1/chat/completions", {"Authorization": f"Bearer {token}"}
    answer = Answer(None)
    try:
        async with session.post(url, json=body, headers=headers) as reply:
            answer.status, answer.headers = reply.status, dict(reply.headers)
            async for chunk in reply.content.iter_any():
                answer.text += chunk.decode()
    except (aiohttp.ClientError, OSError) as error:
        answer.error = error
    return answer


def fresh_session() -> aiohttp.ClientSession:
    """Every request on a connection of its own, so that the kernel spreads them over the processes of a port."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))


def until(found: Callable[[], T | None], within_s: float = 20) -> T:
    """What `found` returns first that is true; asked often."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        result = found()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError("it did not come about in time")


def get(url: str, token: str | None = None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.get(url, headers=headers, timeout=30)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(20_000 + os.getpid() % 5000, 60_000, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
