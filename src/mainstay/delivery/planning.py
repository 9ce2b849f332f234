"""What a project wants, and the steps from what there is to that. Decides only; `delivery.py` carries it out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from mainstay.core.content import Digest, digest_json
from mainstay.core.errors import InvalidInput
from mainstay.delivery.manifests import manifest_digest
from mainstay.delivery.project import AppSpec, Project
from mainstay.delivery.types import Artifact, ArtifactKind, Change, Manifest, Release
from mainstay.guard import default_policy, policy_body

DEFAULT_POLICY = "default"
FIRST_ENVIRONMENTS = ("production", "dev")
"""Where the first release of an app goes; later ones go to `dev`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A version as the project has it, before it is known whether it is stored already."""

    kind: ArtifactKind
    name: str
    body: Mapping[str, Any]
    digest: Digest


@dataclass(frozen=True, slots=True)
class Desired:
    """All versions a project names, and each app's manifest."""

    drafts: tuple[Draft, ...]
    manifests: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class ArtifactStep:
    draft: Draft
    number: int
    is_new: bool
    change: Change


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    manifest: Manifest
    digest: Digest
    number: int
    is_new: bool
    change: Change


@dataclass(frozen=True, slots=True)
class MoveStep:
    app: str
    environment: str
    before: int | None
    release: int

    @property
    def change(self) -> Change:
        name = f"{self.app}@{self.environment}"
        if self.before is None:
            return Change("environment", name, "create", f"r{self.release}")
        return Change("environment", name, "update", f"r{self.before} → r{self.release}")


# --- what is wanted ----------------------------------------------------------------------------------------


def desired_state(project: Project, corpora: Mapping[str, str]) -> Desired:
    """`corpora`: corpus → snapshot id. Raises InvalidInput when an app's corpus has none."""
    policies = dict(project.policies)
    if any(app.policy is None for app in project.apps.values()):
        policies.setdefault(DEFAULT_POLICY, default_policy())
    drafts = {
        ("prompt", name): _draft("prompt", name, prompt.body()) for name, prompt in project.prompts.items()
    }
    drafts |= {("policy", name): _draft("policy", name, policy_body(p)) for name, p in policies.items()}
    for app in project.apps.values():
        drafts["model", app.model] = _draft("model", app.model, {"model": app.model})
    for name, dataset in project.datasets.items():
        body = {"name": name, "cases": len(dataset.cases), "text": dataset.text}
        drafts["dataset", name] = _draft("dataset", name, body)
    digests = {key: draft.digest for key, draft in drafts.items()}
    manifests = tuple(_manifest(app, digests, corpora) for app in project.apps.values())
    return Desired(tuple(drafts.values()), manifests)


def _draft(kind: ArtifactKind, name: str, body: Mapping[str, Any]) -> Draft:
    return Draft(kind, name, body, digest_json(dict(body)))


def _manifest(
    app: AppSpec, digests: Mapping[tuple[str, str], Digest], corpora: Mapping[str, str]
) -> Manifest:
    pins: dict[ArtifactKind, str] = {
        "prompt": digests["prompt", app.prompt],
        "model": digests["model", app.model],
        "policy": digests["policy", app.policy or DEFAULT_POLICY],
    }
    if app.corpus is not None:
        if app.corpus not in corpora:
            raise InvalidInput(
                f"App {app.name} needs a snapshot of corpus {app.corpus!r}.", fix="Ingest the corpus first."
            )
        pins["corpus"] = corpora[app.corpus]
    return Manifest(app.name, pins, app.retrieval, app.generation)


# --- steps to it -------------------------------------------------------------------------------------------


def plan_artifact(draft: Draft, versions: Sequence[Artifact]) -> ArtifactStep:
    """`versions`: of this kind and name, newest first."""
    same = next((version for version in versions if version.digest == draft.digest), None)
    if same is not None:
        change = Change(draft.kind, draft.name, "none", f"v{same.number}")
        return ArtifactStep(draft, same.number, False, change)
    if not versions:
        change = Change(draft.kind, draft.name, "create", "v1", body_diff(draft.kind, {}, draft.body))
        return ArtifactStep(draft, 1, True, change)
    latest = versions[0]
    number = latest.number + 1
    diff = body_diff(draft.kind, latest.body, draft.body)
    change = Change(draft.kind, draft.name, "update", f"v{latest.number} → v{number}", diff)
    return ArtifactStep(draft, number, True, change)


def plan_release(manifest: Manifest, releases: Sequence[Release]) -> ReleaseStep:
    """`releases`: of this app, newest first."""
    digest = manifest_digest(manifest)
    same = next((release for release in releases if release.digest == digest), None)
    if same is not None:
        change = Change("release", manifest.app, "none", f"r{same.number}")
        return ReleaseStep(manifest, digest, same.number, False, change)
    if not releases:
        return ReleaseStep(manifest, digest, 1, True, Change("release", manifest.app, "create", "r1"))
    latest = releases[0]
    number = latest.number + 1
    what = ", ".join(changed_parts(latest.manifest, manifest))
    change = Change("release", manifest.app, "update", f"r{latest.number} → r{number}: {what}")
    return ReleaseStep(manifest, digest, number, True, change)


def plan_moves(
    step: ReleaseStep, pointers: Mapping[tuple[str, str], int], is_first: bool, promote: bool
) -> tuple[MoveStep, ...]:
    app = step.manifest.app
    names = FIRST_ENVIRONMENTS if is_first or promote else ("dev",)
    moves = (MoveStep(app, name, pointers.get((app, name)), step.number) for name in names)
    return tuple(move for move in moves if move.before != move.release)


def changed_parts(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """Names of what differs: kinds of pins, `retrieval`, `generation`."""
    kinds = sorted(set(old.pins) | set(new.pins))
    parts: list[str] = [kind for kind in kinds if old.pins.get(kind) != new.pins.get(kind)]
    parts += ["retrieval"] if old.retrieval != new.retrieval else []
    parts += ["generation"] if old.generation != new.generation else []
    return tuple(parts)


# --- differences for people --------------------------------------------------------------------------------


def body_diff(kind: ArtifactKind, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A unified diff of two bodies as people write them: prompts and datasets as text, others as YAML."""
    return text_diff(_as_text(kind, old), _as_text(kind, new))


def text_diff(old: str, new: str) -> str:
    """A unified diff without file names; empty when equal."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)


def settings_diff(old: object, new: object) -> str:
    """One `name: old → new` for each setting that differs. Takes dataclass instances of one type."""
    before, after = asdict(old), asdict(new)  # type: ignore[call-overload]
    return ", ".join(
        f"{name}: {before[name]} → {after[name]}" for name in before if before[name] != after[name]
    )


def pin_summary(old: Artifact, new: Artifact) -> str:
    """E.g. `answer v1 → v2`, or for models `local/smollm2 → local/extractive`."""
    if old.kind == "model":
        return f"{old.name} → {new.name}"
    right = f"v{new.number}" if old.name == new.name else f"{new.name} v{new.number}"
    return f"{old.name} v{old.number} → {right}"


def _as_text(kind: ArtifactKind, body: Mapping[str, Any]) -> str:
    if kind in ("prompt", "dataset"):
        return str(body.get("text", ""))
    return yaml.safe_dump(dict(body), sort_keys=True, allow_unicode=True) if body else ""
