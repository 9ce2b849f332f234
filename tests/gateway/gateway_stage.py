"""A real Mainstay server before all vendors' local servers, with keys for clients: the stage of these tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import openai
import yaml
from gateway_said import Vendor
from gateway_vendors import vendors
from gateway_vendors_openai import SickVendor

from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.govern import SYSTEM
from mainstay.govern.types import UNLIMITED, Limits
from mainstay.services import publish

PRICE = {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25, "cache_write_1h": 2}
PROMPT = """---
variables: {question: string}
---
# system
Answer in one sentence.

# user
{{ question }}
"""
SICK = tuple(f"sick-{number}" for number in range(40))
"""Names of providers for tests of failures: what breakers remember of one is nothing to another."""
T = TypeVar("T")


class VendorLoop:
    """An event loop in a thread of its own, for the vendors' servers."""

    def __enter__(self) -> VendorLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vendors", daemon=True)
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class Stage:
    """`ask` as an OpenAI client or as an Anthropic one; `vendors` say what models answer and what they heard."""

    server: RunningServer
    vendors: dict[str, Vendor]
    loop: VendorLoop
    _clients: list[Any] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return self.server.base_url

    @cached_property
    def openai(self) -> openai.OpenAI:
        return self.openai_as(self.server.key)

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        return self.anthropic_as(self.server.key)

    def openai_as(self, key: str, **more: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.base_url}/v1", api_key=key, **{"max_retries": 0, **more})
        self._clients.append(client)
        return client

    def anthropic_as(self, key: str, **more: Any) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=self.base_url, api_key=key, **{"max_retries": 0, **more})
        self._clients.append(client)
        return client

    def key(self, limits: Limits = UNLIMITED, **more: Any) -> tuple[str, str]:
        """(token, id) of a new key, which the gateway knows at once."""
        services = self.server.services
        key, token = services.keys.create(SYSTEM, "client", limits=limits, **more)
        services.refresher.refresh()
        return token.reveal(), key.id

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    with VendorLoop() as loop:
        stack = AsyncExitStack()
        known = vendors() | {"sick": SickVendor()}
        for vendor in known.values():
            loop.run(stack.enter_async_context(vendor.server))
        try:
            project = load_project(_project(folder, known))
            settings = load_settings({"data_dir": folder / "data", "port": 0}, {}, folder)
            with RunningServer(settings, project) as server:
                publish(server.services, SYSTEM, project, note="first")
                stage = Stage(server, known, loop)
                yield stage
                stage.close()
        finally:
            loop.run(stack.aclose())


def _project(folder: Path, known: dict[str, Vendor]) -> Path:
    providers = {
        v.name: {"kind": v.kind, "models": [v.vendor_model], "price": PRICE, **v.settings()}
        for v in known.values()
    }
    for name in SICK:
        sick = known["sick"]
        providers[name] = {"kind": sick.kind, "models": ["m"], "price": PRICE, **sick.settings()}
    openai_model = known["openai-like"].model
    (folder / "answer.md").write_text(PROMPT)
    body = {
        "project": "compatibility",
        "providers": providers,
        "routes": {
            "cached": {"targets": [openai_model], "cache_ttl_s": 600},
            "once": {"targets": [openai_model], "attempts": 1},
            **{f"route-of-{name}": {"targets": [f"{name}/m"], "attempts": 1} for name in SICK},
            "chain": {"policy": "ordered", "targets": [known["ollama"].model, openai_model]},
        },
        "prompts": {"answer": "answer.md"},
        "apps": {"helper": {"prompt": "answer", "model": openai_model}},
    }
    path = folder / "mainstay.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return path
