"""Nouns of delivery: artifacts, releases, environments, plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mainstay.guard.types import Policy
from mainstay.knowledge.types import SnapshotDiff
from mainstay.models.types import ChatMessage
from mainstay.retrieval.types import RetrievalSettings

ArtifactKind = Literal["prompt", "model", "corpus", "policy", "dataset", "suite"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An immutable version: `digest` is of `body`'s canonical JSON; `number` counts versions of (kind, name)."""

    kind: ArtifactKind
    name: str
    number: int
    digest: str
    body: Mapping[str, Any]
    created_at_us: int
    created_by: str


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int | None = 0
    deadline_s: float = 120.0
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release pins. Values of `pins` are artifact digests by kind; corpus is a snapshot id or None."""

    app: str
    pins: Mapping[ArtifactKind, str]
    retrieval: RetrievalSettings
    generation: GenerationSettings


@dataclass(frozen=True, slots=True)
class Release:
    """`number` counts the releases of an app from 1; `digest` is of the manifest's canonical JSON."""

    app: str
    number: int
    digest: str
    manifest: Manifest
    note: str
    created_at_us: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Environment:
    """A pointer app@name → release. `history` is newest first: (release number, at_us, actor, reason).

    `previous` is the release that a rollback would go to; None when there is none.
    """

    app: str
    name: str
    release: int
    history: tuple[tuple[int, int, str, str], ...] = ()
    previous: int | None = None


class RenderablePrompt(Protocol):
    """A typed, sandboxed prompt template; delivery/prompts.py makes them."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def render(self, variables: Mapping[str, Any]) -> tuple[ChatMessage, ...]: ...


@dataclass(frozen=True, slots=True)
class RunnableRelease:
    """A release with everything its request path needs in memory. `corpus` is a snapshot id or None."""

    release: Release
    environment: str | None
    prompt: RenderablePrompt
    model: str
    corpus: str | None
    policy: Policy
    retrieval: RetrievalSettings
    generation: GenerationSettings


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan, e.g. ("prompt", "answer", "update", "v2 → v3"). `diff` is a unified diff or empty."""

    kind: str
    name: str
    action: Literal["create", "update", "none"]
    summary: str
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    changes: tuple[Change, ...]
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What an apply did. `releases` are the new ones; `moved` the pointers that moved. Both empty: no change."""

    releases: tuple[Release, ...]
    changes: tuple[Change, ...]
    moved: tuple[Environment, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseDiff:
    """From release `a` to release `b` of an app: what differs, with text diffs; `corpus` when both have one."""

    app: str
    a: int
    b: int
    changes: tuple[Change, ...]
    corpus: SnapshotDiff | None = None
