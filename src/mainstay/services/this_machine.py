"""Models on this machine, and whether an engine holds them in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainstay.core.config import Settings
from mainstay.models import install
from mainstay.models.engine import running_engines, usable_context_tokens


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model of the local engine. An adapter changes the model `base`, and is loaded with it.

    `memory_bytes` is what its process holds now; None while it is not loaded, or where that is not to be had.
    """

    kind: str
    base: str | None
    bytes: int
    context_tokens: int
    loaded: bool
    memory_bytes: int | None
    adapters: tuple[str, ...]

    @property
    def state(self) -> str:
        return "loaded" if self.loaded else "not loaded"


def local_models(settings: Settings) -> Mapping[str, LocalModel]:
    """By public name. What is loaded is read from this machine's processes, whoever started them."""
    running = {engine.gguf: engine for engine in running_engines()}
    models = {m.name: m for m in install.installed(settings.models_dir) if m.weights is not None}
    found: dict[str, LocalModel] = {}
    for model in models.values():
        base = models.get(model.base) if model.base is not None else model
        gguf = base.weights if base is not None else None
        engine = running.get(gguf) if gguf is not None else None
        context = (
            settings.engine_context if gguf is None else usable_context_tokens(gguf, settings.engine_context)
        )
        found[f"local/{model.name}"] = LocalModel(
            kind=model.kind,
            base=model.base,
            bytes=model.bytes,
            context_tokens=context,
            loaded=engine is not None,
            memory_bytes=None if engine is None else engine.memory_bytes,
            adapters=tuple(m.name for m in models.values() if m.base == model.name),
        )
    return found
