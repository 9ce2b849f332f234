"""Calls to the local engine, for tests with the real SmolLM2."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.models import ChatCall, ChatMessage, Delta
from mainstay.models.install import installed
from mainstay.models.providers import LlamaCpp


def smollm2(models_dir: Path) -> Path:
    """The model's file; skips the test where it is not installed."""
    found = [model.weights for model in installed(models_dir) if model.name == "smollm2"]
    if not found or found[0] is None:
        pytest.skip("needs the model: mainstay models add smollm2")
    return found[0]


def call(text: str = "Name three colours.", **more: object) -> ChatCall:
    settings: dict[str, object] = {"temperature": 0.0, "max_tokens": 12, **more}
    return ChatCall(model="smollm2", messages=(ChatMessage("user", text),), **settings)  # type: ignore[arg-type]


def endless(**more: object) -> ChatCall:
    """Runs until it is stopped: the token that ends an answer cannot come."""
    return call("Count to a million.", **{"max_tokens": 900, "logit_bias": {"2": -100.0}, **more})


async def ask(engine: LlamaCpp, chat: ChatCall, deadline_s: float = 60.0) -> list[Delta]:
    return [delta async for delta in engine.stream(chat, deadline_s)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def pid(engine: LlamaCpp) -> int:
    assert engine.state.pid is not None
    return engine.state.pid
