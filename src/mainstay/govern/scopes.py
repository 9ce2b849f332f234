"""Which limits a request falls under: those of its key, the key's user, team and project, and of the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from mainstay.core.errors import InvalidInput, NotFound, did_you_mean
from mainstay.govern.types import (
    UNLIMITED,
    ApiKey,
    LimitKey,
    Limits,
    LimitScope,
    Project,
    ScopeKind,
    Team,
    User,
)


def scopes_of(
    key: ApiKey,
    teams: Mapping[str, Team],
    projects: Mapping[str, Project],
    users: Mapping[str, User],
    limits: Mapping[LimitKey, Limits],
) -> tuple[LimitScope, ...]:
    """The scopes with limits that a key's requests fall under, in the order key, user, team, project.

    The mappings are by id. A key that names no team falls under its project's.
    """
    found = [] if key.limits.unlimited else [LimitScope("key", key.id, key.name, key.limits)]
    project = None if key.project_id is None else projects.get(key.project_id)
    team_id = key.team_id or (project.team_id if project else None)
    user = None if key.user_id is None else users.get(key.user_id)
    team = None if team_id is None else teams.get(team_id)
    owners: tuple[tuple[ScopeKind, User | Team | Project | None], ...] = (
        ("user", user),
        ("team", team),
        ("project", project),
    )
    for kind, owner in owners:
        own = UNLIMITED if owner is None else limits.get((kind, owner.id), UNLIMITED)
        if owner is not None and not own.unlimited:
            found.append(LimitScope(kind, owner.id, owner.name, own))
    return tuple(found)


def app_scope(app: str, limits: Mapping[LimitKey, Limits]) -> LimitScope | None:
    """The scope of an app's own limits; None when it has none."""
    own = limits.get(("app", app), UNLIMITED)
    return None if own.unlimited else LimitScope("app", app, app, own)


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything but apps that limits can be set on, by id."""

    keys: Mapping[str, ApiKey]
    users: Mapping[str, User]
    teams: Mapping[str, Team]
    projects: Mapping[str, Project]

    @classmethod
    def of(
        cls,
        keys: Iterable[ApiKey],
        users: Iterable[User],
        teams: Iterable[Team],
        projects: Iterable[Project],
    ) -> Directory:
        return cls(
            {k.id: k for k in keys},
            {u.id: u for u in users},
            {t.id: t for t in teams},
            {p.id: p for p in projects},
        )

    def find(self, kind: ScopeKind, text: str) -> str:
        """The id of what is called so, by its id or its name (a user: or e-mail address; an app: as it is).

        Raises NotFound, and InvalidInput for a name that several keys or users have.
        """
        if kind == "app":
            return text
        named = self._named(kind)
        if text in named:
            return text
        wanted = text.strip()
        found = [i for i, names in named.items() if wanted in names or wanted.lower() in names]
        if len(found) > 1:
            raise InvalidInput(
                f"{len(found)} {kind}s are called {wanted!r}.", fix=f"Give an id: {', '.join(found)}."
            )
        return found[0] if found else _unknown(kind, text, [names[-1] for names in named.values()])

    def name(self, kind: ScopeKind, scope_id: str) -> str:
        """What people call it; the id of what is no longer there."""
        if kind == "app":
            return scope_id
        found = self._named(kind).get(scope_id)
        return scope_id if found is None else found[-1]

    def scopes(self, limits: Mapping[LimitKey, Limits]) -> tuple[LimitScope, ...]:
        """Everything in use that has limits, sorted by kind and name: no revoked keys, no disabled users."""
        kinds: tuple[ScopeKind, ...] = ("key", "user", "team", "project", "app")
        found = [
            LimitScope(kind, scope_id, self.name(kind, scope_id), own)
            for (kind, scope_id), own in limits.items()
            if kind == "app" or self._in_use(kind, scope_id)
        ]
        return tuple(sorted(found, key=lambda s: (kinds.index(s.kind), s.name.lower(), s.id)))

    def _in_use(self, kind: ScopeKind, scope_id: str) -> bool:
        if kind == "key":
            key = self.keys.get(scope_id)
            return key is not None and key.revoked_at_us is None
        if kind == "user":
            user = self.users.get(scope_id)
            return user is not None and user.disabled_at_us is None
        return scope_id in self._named(kind)

    def _named(self, kind: ScopeKind) -> dict[str, tuple[str, ...]]:
        """By id: the names it answers to, the one for people last."""
        if kind == "key":
            return {k.id: (k.name,) for k in self.keys.values() if k.revoked_at_us is None}
        if kind == "user":
            return {u.id: (u.email, u.name) for u in self.users.values()}
        owners = self.teams if kind == "team" else self.projects
        return {o.id: (o.name,) for o in owners.values()}


def _unknown(kind: ScopeKind, text: str, names: list[str]) -> NoReturn:
    raise NotFound(f"There is no {kind} {text!r}.", fix=did_you_mean(text, names))
