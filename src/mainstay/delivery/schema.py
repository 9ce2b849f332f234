"""What may stand in `mainstay.yaml`: Pydantic models at this edge, and the JSON Schema that editors use."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from mainstay.core.config import SPECS
from mainstay.delivery.types import GenerationSettings
from mainstay.models.providers import PROVIDER_KINDS
from mainstay.models.types import Capability, RoutePolicy
from mainstay.retrieval.types import RetrievalSettings

_generation = GenerationSettings()
_retrieval = RetrievalSettings()

AppName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Section(BaseModel):
    # Strict: `top_k: true` is a mistake, not the number 1.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PriceSection(_Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0, description="As input, unless there is a discount.")
    cache_write: float | None = Field(None, ge=0, description="Written to a cache; as input, unless dearer.")
    cache_write_1h: float | None = Field(
        None, ge=0, description="Written to a cache for an hour; as cache_write, unless dearer."
    )


class ProviderSection(_Section):
    """A service that answers, or a vendor we know, set up by its name."""

    kind: Text = Field(
        "openai",
        description="How it is spoken to.",
        json_schema_extra={"examples": list(PROVIDER_KINDS)},
    )
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = Field(
        None, description="Base URL with the version, e.g. http://localhost:8000/v1; else the vendor's own."
    )
    api_key_env: Text | None = Field(None, description="Environment variable that holds the key.")
    api_key_envs: list[Text] = Field(default_factory=list, description="Several keys, which share the load.")
    models: list[Text] = Field(default_factory=list, description="Its models, for lists.")
    price: PriceSection | None = Field(None, description="Of all its models; else from the price list.")
    idle_timeout_s: float | None = Field(None, gt=0, le=3600, description="Longest silence in a stream.")
    connect_timeout_s: float | None = Field(None, gt=0, le=600, description="Longest wait for a connection.")
    max_tokens_field: Text | None = Field(None, description="What it calls the limit of output tokens.")
    options: dict[str, str | int | float | bool | date] = Field(
        default_factory=dict, description="What only this kind knows, e.g. Azure's api_version."
    )
    lacks: list[Capability] = Field(default_factory=list, description="What none of its models takes.")


class ModelSection(_Section):
    """Another name for a provider's model."""

    provider: Text = Field(description="A name under `providers`, or a vendor such as openai.")
    model: Text = Field(description="The provider's own name of the model.")
    price: PriceSection | None = Field(None, description="Else the provider's, else from the price list.")
    context_tokens: int | None = Field(None, ge=1, description="Longest input and output together.")
    max_output_tokens: int | None = Field(None, ge=1, description="Longest output.")
    supports: list[Capability] | None = Field(None, description="All that it takes; else what is known.")
    lacks: list[Capability] = Field(default_factory=list, description="What it does not take.")


class RouteTargetSection(_Section):
    """A target of a route with its share."""

    model: Text = Field(description="E.g. openai/gpt-4o-mini, or a name under `models`.")
    weight: float = Field(1, ge=0, description="Its share of a weighted route; 0: for fallback alone.")


class RouteSection(_Section):
    """A name for several models, and how one is chosen for a request."""

    policy: RoutePolicy = Field("weighted", description="How a target is chosen.")
    targets: list[Text | RouteTargetSection] = Field(min_length=1, description="Models to choose from.")
    sticky: bool = Field(False, description="A conversation stays with its target.")
    attempts: int = Field(3, ge=1, le=20, description="Attempts for a request, all targets together.")
    attempts_per_target: int = Field(2, ge=1, le=20, description="Attempts at one target.")
    deadline_s: float = Field(600, gt=0, le=3600, description="Seconds a request may take.")
    first_token_timeout_s: float | None = Field(None, gt=0, le=3600, description="Longest wait for a word.")
    cache_ttl_s: float | None = Field(None, gt=0, description="Seconds that answers are kept; null: not.")
    context_fallback: Text | None = Field(None, description="Model for prompts too long for the targets.")


class CorpusSection(_Section):
    """Documents an app answers from."""

    paths: list[Text] = Field(min_length=1, description="Files and folders, relative to this file.")
    include: list[Text] = Field(default_factory=list, description="Only files that match one of these globs.")
    exclude: list[Text] = Field(default_factory=list, description="Not files that match one of these globs.")
    chunk_chars: int = Field(800, ge=100, le=8000, description="Characters of a chunk, about.")
    groups: list[Text] = Field(default_factory=list, description="Groups that may see it; empty: everyone.")


class RetrievalSection(_Section):
    """How passages are found."""

    mode: Literal["hybrid", "dense", "lexical"] = _retrieval.mode
    top_k: int = Field(_retrieval.top_k, ge=1, le=50, description="Passages given to the model.")
    candidates: int = Field(
        _retrieval.candidates, ge=1, le=1000, description="Passages looked at by each way."
    )
    dense_weight: float = Field(
        _retrieval.dense_weight, ge=0, le=1, description="0 words only, 1 meaning only."
    )
    answerable_min: float = Field(
        _retrieval.answerable_min, ge=0, le=1, description="Below this the app says the sources do not say."
    )


class GenerationSection(_Section):
    """How the model writes."""

    temperature: float = Field(_generation.temperature, ge=0, le=2)
    max_tokens: int = Field(_generation.max_tokens, ge=1, le=131072, description="Longest answer.")
    seed: int | None = Field(_generation.seed, description="Null: a different answer each time.")
    deadline_s: float = Field(
        _generation.deadline_s, gt=0, le=3600, description="Seconds a request may take."
    )
    cache: bool = Field(_generation.cache, description="Give the stored answer to the same question.")


class AppSection(_Section):
    """An app: what clients name as their model."""

    prompt: Text = Field(description="A name under `prompts`, or a path such as prompts/answer.md.")
    model: Text = Field(description="E.g. local/smollm2, openai/gpt-4o-mini, or a name under `models`.")
    corpus: Text | None = Field(None, description="A name under `knowledge`.")
    policy: Text | None = Field(
        None, description="A name under `policies`, or a path such as policies/a.yaml."
    )
    retrieval: RetrievalSection = Field(default_factory=lambda: RetrievalSection.model_validate({}))
    generation: GenerationSection = Field(default_factory=lambda: GenerationSection.model_validate({}))


class ProjectFile(_Section):
    """A Mainstay project: apps and everything they are made of."""

    project: Name = Field(description="Name of the project.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Server settings.")
    providers: dict[Name, ProviderSection] = Field(default_factory=dict)
    models: dict[Name, ModelSection] = Field(default_factory=dict, description="Your own names of models.")
    routes: dict[Name, RouteSection] = Field(
        default_factory=dict, description="Names that choose among models."
    )
    knowledge: dict[Name, CorpusSection] = Field(default_factory=dict)
    prompts: dict[Name, Text] = Field(default_factory=dict, description="Prompt files by name.")
    policies: dict[Name, Text] = Field(default_factory=dict, description="Policy files by name.")
    datasets: dict[Name, Text] = Field(default_factory=dict, description="Evaluation questions, JSON Lines.")
    apps: dict[AppName, AppSection] = Field(default_factory=dict)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_section(cls, value: object, info: Any) -> object:
        """`prompts:` with nothing below it is an empty section."""
        return {} if value is None and info.field_name != "project" else value


def project_schema() -> dict[str, Any]:
    """JSON Schema of `mainstay.yaml`. Name it in the file's first line for completion in editors:

    `# yaml-language-server: $schema=.mainstay/project.schema.json`
    """
    schema = ProjectFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mainstay.yaml"
    settings = {name: {"description": spec.help} for name, spec in SPECS.items()}
    schema["properties"]["settings"] = {
        "type": "object",
        "description": "Server settings.",
        "additionalProperties": False,
        "properties": settings,
    }
    for section in schema["properties"].values():
        if section["type"] == "object":
            section["type"] = ["object", "null"]  # as the reader takes an empty section
    return schema
