"""Nouns of governance: who calls, what they may do, what is written down about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Role = Literal["viewer", "developer", "admin"]

Permission = Literal[
    "read",  # look at apps, traces, documents, evaluations
    "call",  # ask apps and models through the gateway
    "write",  # sync, apply, promote, roll back, evaluate, replay, ingest telemetry
    "govern",  # users, keys, audit, retention
    "public",  # no credentials needed (sign-in page, health)
]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller we know. `id` is `user_…`, `key_…` or `cli:<name>`; `groups` are document labels they may see."""

    id: str
    name: str
    kind: Literal["user", "key", "local", "system"]
    role: Role
    groups: frozenset[str] = frozenset()


ScopeKind = Literal["key", "user", "team", "project", "app"]
BudgetWindow = Literal["day", "week", "month", "total"]


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of nano-dollars per window (UTC; weeks begin on Monday). A soft one warns, a hard one refuses."""

    limit_nusd: int
    window: BudgetWindow
    hard: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What one scope may use; None means no limit. Several budgets may hold at once, one for each window."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    budgets: tuple[Budget, ...] = ()

    @property
    def unlimited(self) -> bool:
        """Nothing is limited, and nothing warns."""
        return (
            not self.budgets
            and self.requests_per_minute is None
            and self.tokens_per_minute is None
            and self.concurrent_requests is None
        )


UNLIMITED: Final = Limits()

LimitKey = tuple[ScopeKind, str]
"""What limits are stored under: a kind, and an id (of an app: its name)."""


@dataclass(frozen=True, slots=True)
class LimitScope:
    """Something that limits apply to. `id` is stable and unique within its kind; `name` is for people."""

    kind: ScopeKind
    id: str
    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Team:
    """People who share limits. `name` is unique."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Project:
    """Something that keys are made for. Its team counts for its keys that name none themselves."""

    id: str
    name: str
    team_id: str | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A virtual key. The token itself is shown once and stored only as a keyed hash.

    `models`: names the key may ask for (an app, a model, or `*`); None means all.
    `limits` are the key's own; those of its user, team and project apply as well.
    """

    id: str
    name: str
    prefix: str
    token_hash: str
    role: Role
    models: tuple[str, ...] | None
    groups: frozenset[str]
    limits: Limits
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    user_id: str | None = None
    team_id: str | None = None
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    id: str
    email: str
    name: str
    role: Role
    created_at_us: int
    disabled_at_us: int | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of the audit log. `hash` covers every field and the previous row's hash."""

    sequence: int
    at_us: int
    actor: str
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    previous_hash: str = ""
    hash: str = ""


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What checking the audit log found. `rows` were read; `first_bad_sequence` is where trust ends.

    `signed` says whether the checkpoint's signature was checked; without the master key it cannot be.
    """

    ok: bool
    rows: int
    first_bad_sequence: int | None
    reason: str
    signed: bool = False
