"""`GET /v1/models`: every name the caller may ask for, as OpenAI lists models."""

from __future__ import annotations

from typing import Any

from mainstay.core.clock import US_PER_S
from mainstay.govern.types import ApiKey
from mainstay.retrieval.types import Embedder
from mainstay.serving.deps import Deps
from mainstay.serving.embeddings import names_of
from mainstay.serving.errors import ModelNotFound
from mainstay.serving.snapshot import may_use


def listed_models(deps: Deps, embedder: Embedder | None, key: ApiKey | None) -> dict[str, Any]:
    return {"object": "list", "data": _bodies(deps, embedder, key)}


def listed_model(deps: Deps, embedder: Embedder | None, key: ApiKey | None, name: str) -> dict[str, Any]:
    """Raises ModelNotFound, naming what is nearest among what the caller may see."""
    bodies = _bodies(deps, embedder, key)
    for body in bodies:
        if body["id"] == name:
            return body
    raise ModelNotFound(name, [body["id"] for body in bodies])


def _bodies(deps: Deps, embedder: Embedder | None, key: ApiKey | None) -> list[dict[str, Any]]:
    snapshot = deps.snapshots.current
    apps = [
        {
            "id": name,
            "object": "model",
            "created": runnable.release.created_at_us // US_PER_S,
            "owned_by": "mainstay",
            "mainstay": {
                "kind": "app",
                "app": runnable.release.app,
                "environment": runnable.environment,
                "release": runnable.release.number,
                "release_digest": runnable.release.digest,
                "model": runnable.model,
            },
        }
        for name, runnable in sorted(snapshot.runnables.items())
    ]
    embedders = names_of(embedder)[:1] if embedder is not None else ()
    plain = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": _owner(name),
            "mainstay": {"kind": kind},
        }
        for kind, names in (("model", snapshot.models), ("embedder", embedders))
        for name in names
    ]
    return [body for body in [*apps, *plain] if may_use(key, str(body["id"]))]


def _owner(name: str) -> str:
    owner, slash, _ = name.partition("/")
    return owner if slash else "mainstay"
