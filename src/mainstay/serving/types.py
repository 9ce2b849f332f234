"""Nouns of serving: a chat request in the normal form, the caller, and the events of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mainstay.core.money import usd_text
from mainstay.core.values import value
from mainstay.govern.types import ApiKey, Identity
from mainstay.guard.types import Finding
from mainstay.models.types import ChatCall, ChatMessage, Choice, Delta, FinishReason, Usage
from mainstay.retrieval.types import Citation, Passage

CostSource = Literal["provider", "computed", "unknown", "cache"]
"""Of token counts behind a cost: the provider's own, ours (it gave none or was cut off), or nobody's."""

CacheState = Literal["hit", "miss", "bypass"]
CacheWish = Literal["release", "use", "skip"]
"""`release`: as the release says; `use` and `skip`: the caller asked for or against the cache."""


SurfaceName = Literal["chat", "responses", "messages", "completions"]


@value
class ChatRequest:
    """A validated request for an answer, in the normal form, whichever surface it came through.

    `model` is the name asked for: an app, a route or a model. `call` is what is asked of it; its own `model`
    is empty until a target is chosen. `include_usage`: an OpenAI stream ends with a chunk of usage.
    `hints` are the surface's own notes for its renderer, e.g. what a response repeats of its request.
    """

    model: str
    call: ChatCall
    stream: bool = False
    include_usage: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    surface: SurfaceName = "chat"
    hints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        return self.call.messages

    @property
    def user(self) -> str | None:
        return self.call.user


@value
class Call:
    """One request and who makes it. `key` is None for people and for commands: none of a key's limits applies.

    `deadline_s` bounds everything done for the request; None: as the route or release says. `client_retry`
    counts how often the client's SDK has sent it before. `cache_max_age_s`: older answers are not wanted.
    """

    request: ChatRequest
    identity: Identity
    key: ApiKey | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    replay_of: str | None = None
    cache: CacheWish = "release"
    cache_max_age_s: float | None = None
    deadline_s: float | None = None
    client_retry: int = 0


@value
class RateState:
    """What is left of a limit per minute, of requests or tokens; `reset_s` until all of it is back."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Grounding:
    """What checking an answer against its sources found.

    `supported_share`: of the model's own sentences, None when none was scored. `removed` sentences were
    not shown, `flagged` ones were shown without a source. `fallback` says what replaced the model's words.
    """

    supported_share: float | None = None
    removed: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    fallback: Literal["extractive", "refused"] | None = None


UNCHECKED = Grounding()
"""Nothing was checked."""


@value
class Started:
    """What is known before the first word, for the response headers."""

    trace_id: str
    snapshot_id: str
    model: str
    provider: str
    release: str | None
    cache: CacheState
    target: str | None = None
    attempts: int = 1
    fallback_reason: str | None = None
    rate: RateState | None = None
    token_rate: RateState | None = None
    budget_remaining_nusd: int | None = None
    soft_exceeded: tuple[str, ...] = ()
    cache_age_s: float | None = None
    dropped: tuple[str, ...] = ()
    """Fields of the request that no target needs to know and that were left out."""


@value
class Final:
    """The end of an answer: the whole of it and everything to be said about it.

    `cost_nusd` None means unknown. `answered_by` is the public name of the model that wrote what the
    caller read, or `refusal` when the policy's own words were shown. `response_model` is the name that its
    provider gave. `raw`: the provider's whole body, when nothing of it was changed and the surface speaks its format.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    cost_nusd: int | None
    latency_ms: float
    trace_id: str
    answered_by: str
    cache: CacheState
    app: str | None = None
    release: int | None = None
    release_digest: str | None = None
    environment: str | None = None
    refused: bool = False
    grounding: Grounding = UNCHECKED
    citations: tuple[Citation, ...] = ()
    passages: tuple[Passage, ...] = ()
    guard: tuple[Finding, ...] = ()
    response_model: str | None = None
    raw: bytes | None = None
    cost_source: CostSource = "provider"
    saved_nusd: int | None = None
    """What the answer cost when it was made, if it came from the cache."""
    masked: Mapping[str, str] = field(default_factory=dict)
    """Texts of the request and what the guard let go on in their place: who keeps the request keeps these."""
    upstream_ms: float = 0.0
    """How long models were waited for; `latency_ms` less this is the gateway's own."""

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text if self.choices else ""

    @property
    def finish_reason(self) -> FinishReason:
        return self.choices[0].finish_reason if self.choices else "stop"

    def extension(self) -> dict[str, Any]:
        """The `mainstay` object of a response body, or of a stream's last chunk."""
        return {
            "trace_id": self.trace_id,
            "app": self.app,
            "release": self.release,
            "release_digest": self.release_digest,
            "environment": self.environment,
            "answered_by": self.answered_by,
            "cost_nusd": self.cost_nusd,
            "cost_usd": None if self.cost_nusd is None else usd_text(self.cost_nusd),
            "cost_source": self.cost_source,
            "latency_ms": round(self.latency_ms, 3),
            "cache": self.cache,
            "refused": self.refused,
            "grounding": {
                "supported_share": self.grounding.supported_share,
                "removed": list(self.grounding.removed),
                "flagged": list(self.grounding.flagged),
                "fallback": self.grounding.fallback,
            },
            "citations": [citation_body(c) for c in self.citations],
            "guard": [finding_body(f) for f in self.guard],
        }


Event = Started | Delta | Final


def citation_body(citation: Citation) -> dict[str, Any]:
    return {
        "number": citation.number,
        "document": citation.uri,
        "version": citation.version_number,
        "version_id": citation.version_id,
        "title": citation.title,
        "page": citation.page,
        "heading": list(citation.heading_path),
        "start": citation.start,
        "end": citation.end,
        "quote": citation.quote,
        "score": citation.score,
    }


def passage_body(passage: Passage) -> dict[str, Any]:
    return {
        "number": passage.number,
        "document": passage.uri,
        "version": passage.version_number,
        "version_id": passage.version_id,
        "title": passage.title,
        "page": passage.page,
        "heading": list(passage.heading_path),
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "score": passage.score,
        "score_parts": dict(passage.score_parts),
    }


def finding_body(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "kind": finding.kind,
        "rail": finding.rail,
        "action": finding.action,
        "score": finding.score,
        "start": finding.start,
        "end": finding.end,
        "excerpt": finding.excerpt,
    }
