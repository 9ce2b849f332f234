"""Manifests as canonical JSON: what a release's digest is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mainstay.core.content import Digest, digest_json
from mainstay.delivery.types import GenerationSettings, Manifest
from mainstay.retrieval.types import RetrievalSettings


def manifest_body(manifest: Manifest) -> dict[str, Any]:
    return {
        "app": manifest.app,
        "pins": dict(manifest.pins),
        "retrieval": asdict(manifest.retrieval),
        "generation": asdict(manifest.generation),
    }


def manifest_from_body(body: Mapping[str, Any]) -> Manifest:
    return Manifest(
        app=body["app"],
        pins=body["pins"],
        retrieval=RetrievalSettings(**body["retrieval"]),
        generation=GenerationSettings(**body["generation"]),
    )


def manifest_digest(manifest: Manifest) -> Digest:
    """The same app, pins and settings give the same digest."""
    return digest_json(manifest_body(manifest))
