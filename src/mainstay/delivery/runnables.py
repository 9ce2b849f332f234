"""Releases made ready to serve: prompts compiled, policies read, settings at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from mainstay.core.errors import NotFound
from mainstay.delivery import store
from mainstay.delivery.prompts import Prompt, prompt_from_body
from mainstay.delivery.types import Artifact, ArtifactKind, Release, RunnableRelease
from mainstay.guard import Policy, policy_from_body


class Assembler:
    """Assembles releases. What a digest names never changes, so each prompt is compiled once."""

    def __init__(self) -> None:
        self._prompts: dict[str, Prompt] = {}
        self._policies: dict[str, Policy] = {}
        self._models: dict[str, str] = {}

    def assemble(
        self,
        connection: sa.Connection,
        releases: Sequence[Release],
        pointers: Mapping[tuple[str, str], int],
    ) -> dict[str, RunnableRelease]:
        by_number = {(release.app, release.number): release for release in releases}
        ready = {
            f"{app}@r{number}": self._runnable(connection, release, None)
            for (app, number), release in by_number.items()
        }
        for (app, environment), number in pointers.items():
            runnable = self._runnable(connection, by_number[app, number], environment)
            ready[f"{app}@{environment}"] = runnable
            if environment == "production":
                ready[app] = runnable
        return ready

    def _runnable(
        self, connection: sa.Connection, release: Release, environment: str | None
    ) -> RunnableRelease:
        manifest = release.manifest
        return RunnableRelease(
            release=release,
            environment=environment,
            prompt=self._prompt(connection, manifest.pins["prompt"]),
            model=self._model(connection, manifest.pins["model"]),
            corpus=manifest.pins.get("corpus"),
            policy=self._policy(connection, manifest.pins["policy"]),
            retrieval=manifest.retrieval,
            generation=manifest.generation,
        )

    def _prompt(self, connection: sa.Connection, digest: str) -> Prompt:
        if digest not in self._prompts:
            self._prompts[digest] = prompt_from_body(pinned(connection, "prompt", digest).body)
        return self._prompts[digest]

    def _policy(self, connection: sa.Connection, digest: str) -> Policy:
        if digest not in self._policies:
            self._policies[digest] = policy_from_body(pinned(connection, "policy", digest).body)
        return self._policies[digest]

    def _model(self, connection: sa.Connection, digest: str) -> str:
        if digest not in self._models:
            self._models[digest] = str(pinned(connection, "model", digest).body["model"])
        return self._models[digest]


def pinned(connection: sa.Connection, kind: ArtifactKind, digest: str) -> Artifact:
    """The version that a release pins. Raises NotFound, which only a damaged database can bring about."""
    found = store.artifact_by_digest(connection, kind, digest)
    if found is None:
        raise NotFound(
            f"A {kind} that a release pins is not stored.", fix="Restore the database from a backup."
        )
    return found
