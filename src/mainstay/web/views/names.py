"""Who and what the ids on a page stand for: people, keys, teams, projects, and which app names are ours."""

from __future__ import annotations

from functools import cached_property

from mainstay.services import Services


class Names:
    """The names one page may need. Each kind is read at most once, and only when the page asks for it."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts

    @cached_property
    def apps(self) -> frozenset[str]:
        """Apps that have a page here. Any other name in a trace is that of a program outside."""
        return frozenset(self._parts.delivery.apps())

    @cached_property
    def _actors(self) -> dict[str, str]:
        people = {user.id: user.name or user.email for user in self._parts.users.list()}
        keys = {key.id: f"key {key.name}" for key in self._parts.keys.list()}
        teams = {team.id: f"team {team.name}" for team in self._parts.teams.list()}
        return people | keys | teams | {p.id: f"project {p.name}" for p in self._parts.projects.list()}

    def who(self, actor: str) -> str:
        """A person's name, else their e-mail address; `key web shop`, `team support`; an id that nobody has stays as it is."""
        return self._actors.get(actor, actor)
