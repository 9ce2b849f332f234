"""Delivery: immutable versions, releases that pin them, environments that point at releases; plan and apply.

`load_project` reads `mainstay.yaml` and what it names; `Delivery` makes versions and releases of it and moves
pointers; `Delivery.runnables()` is what the gateway serves.
"""

from mainstay.delivery.delivery import Delivery
from mainstay.delivery.mistakes import Mistake, ProjectError
from mainstay.delivery.project import (
    AppSpec,
    CorpusSource,
    DatasetFile,
    Project,
    ProviderEntry,
    Route,
    load_project,
)
from mainstay.delivery.prompts import (
    REQUEST_VARIABLES,
    Prompt,
    Variable,
    load_prompt,
    neutralise,
    parse_prompt,
    prompt_from_body,
)
from mainstay.delivery.schema import project_schema
from mainstay.delivery.types import (
    ApplyReport,
    Artifact,
    ArtifactKind,
    Change,
    Environment,
    GenerationSettings,
    Manifest,
    Plan,
    Release,
    ReleaseDiff,
    RenderablePrompt,
    RunnableRelease,
)

__all__ = [
    "REQUEST_VARIABLES",
    "AppSpec",
    "ApplyReport",
    "Artifact",
    "ArtifactKind",
    "Change",
    "CorpusSource",
    "DatasetFile",
    "Delivery",
    "Environment",
    "GenerationSettings",
    "Manifest",
    "Mistake",
    "Plan",
    "Project",
    "ProjectError",
    "Prompt",
    "ProviderEntry",
    "Release",
    "ReleaseDiff",
    "RenderablePrompt",
    "Route",
    "RunnableRelease",
    "Variable",
    "load_project",
    "load_prompt",
    "neutralise",
    "parse_prompt",
    "project_schema",
    "prompt_from_body",
]
