"""`mainstay.yaml` and the files it names, read and checked as a whole: every mistake is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mainstay.core.config import PROJECT_FILE, SPECS
from mainstay.core.errors import ConfigError, did_you_mean
from mainstay.core.yamlfile import KeyPath, YamlFile, load_yaml
from mainstay.delivery.mistakes import Mistake, ProjectError, mistakes_of
from mainstay.delivery.prompts import REQUEST_VARIABLES, Prompt, load_prompt
from mainstay.delivery.schema import AppSection, ProjectFile, project_schema
from mainstay.delivery.types import GenerationSettings
from mainstay.evaluate.dataset import load_dataset
from mainstay.evaluate.types import Case
from mainstay.guard import Policy, load_policy
from mainstay.retrieval.types import RetrievalSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A provider of the project. `api_key_envs` name environment variables; `base_url` None: the vendor's own."""

    kind: str
    base_url: str | None
    api_key_envs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Another name for `model` of `provider`."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """Where a corpus comes from. `paths` are absolute and exist."""

    paths: tuple[Path, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    chunk_chars: int
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """A dataset's file, its text, and the cases in it."""

    path: Path
    text: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class AppSpec:
    """An app as the project wants it. `prompt`, `corpus` and `policy` are names in the project."""

    name: str
    prompt: str
    model: str
    corpus: str | None
    policy: str | None
    retrieval: RetrievalSettings
    generation: GenerationSettings


@dataclass(frozen=True, slots=True)
class Project:
    """A project without mistakes."""

    name: str
    path: Path
    providers: Mapping[str, ProviderEntry]
    models: Mapping[str, Route]
    routes: frozenset[str]
    knowledge: Mapping[str, CorpusSource]
    prompts: Mapping[str, Prompt]
    policies: Mapping[str, Policy]
    datasets: Mapping[str, DatasetFile]
    apps: Mapping[str, AppSpec]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.path.parent


def load_project(path: Path) -> Project:
    """Read `mainstay.yaml`, given itself or by its folder. Raises ProjectError with all mistakes."""
    path = (path / PROJECT_FILE if path.is_dir() else path).absolute()
    if not path.exists():
        raise ConfigError(
            f"There is no file {path}.", fix="Run `mainstay init`, or go to the folder that holds it."
        )
    return _Reader(load_yaml(path)).project()


class _Reader:
    """Collects what is wrong while it reads; `project()` raises if there is anything."""

    def __init__(self, yaml: YamlFile) -> None:
        self._yaml = yaml
        self._root = yaml.path.parent
        self._mistakes: list[Mistake] = []
        self._by_path: dict[tuple[str, Path], str] = {}

    def project(self) -> Project:
        file = self._validated()
        prompts = self._load_all("prompts", file.prompts, load_prompt)
        policies = self._load_all("policies", file.policies, load_policy)
        apps = {name: self._app(name, app, file, prompts, policies) for name, app in file.apps.items()}
        project = Project(
            name=file.project,
            path=self._yaml.path,
            providers={
                n: ProviderEntry(
                    p.kind, p.base_url, (p.api_key_env,) if p.api_key_env else tuple(p.api_key_envs)
                )
                for n, p in file.providers.items()
            },
            models={name: Route(model.provider, model.model) for name, model in file.models.items()},
            routes=frozenset(file.routes),
            knowledge=self._knowledge(file),
            prompts=prompts,
            policies=policies,
            datasets=self._load_all("datasets", file.datasets, _load_dataset),
            apps=apps,
            settings=file.settings,
        )
        self._check_settings(file.settings)
        if self._mistakes:
            order = sorted(
                self._mistakes, key=lambda m: (m.file != self._yaml.path, str(m.file), m.line or 0)
            )
            raise ProjectError(order)
        return project

    def _wrong(self, at: KeyPath, what: str, fix: str | None = None) -> None:
        where = ".".join(str(part) for part in at)
        self._mistakes.append(Mistake(self._yaml.path, self._yaml.line(at), f"{where}: {what}", fix))

    def _validated(self) -> ProjectFile:
        """The file by its schema. Stops here when that fails: what is not understood cannot be followed."""
        if not isinstance(self._yaml.data, dict):
            raise ProjectError(
                [Mistake(self._yaml.path, 1, "must be a mapping.", "Begin with `project: NAME`.")]
            )
        try:
            return ProjectFile.model_validate(self._yaml.data)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                self._wrong(*_explained(problem))
        settings = self._yaml.data.get("settings")
        self._check_settings(settings if isinstance(settings, dict) else {})
        raise ProjectError(sorted(self._mistakes, key=lambda mistake: mistake.line or 0))

    def _load_all(
        self, section: str, files: Mapping[str, str], load: Callable[[Path, str], T]
    ) -> dict[str, T]:
        loaded: dict[str, T] = {}
        for name, relative in files.items():
            item = self._load(section, (section, name), name, relative, load)
            if item is not None:
                loaded[name] = item
        return loaded

    def _load(
        self, section: str, at: KeyPath, name: str, relative: str, load: Callable[[Path, str], T]
    ) -> T | None:
        path = (self._root / relative).resolve()
        self._by_path.setdefault((section, path), name)
        if not path.is_file():
            near = [
                str(p.relative_to(self._root)) for p in self._root.glob(f"*/*{path.suffix}") if p.is_file()
            ]
            self._wrong(at, f"there is no file {relative}.", did_you_mean(relative, near) if near else None)
            return None
        try:
            return load(path, name)
        except ConfigError as error:
            self._mistakes.extend(mistakes_of(error))
            return None

    def _app(
        self,
        name: str,
        app: AppSection,
        file: ProjectFile,
        prompts: dict[str, Prompt],
        policies: dict[str, Policy],
    ) -> AppSpec:
        at: KeyPath = ("apps", name)
        for section in ("models", "routes"):
            if name in getattr(file, section):
                self._wrong(
                    at, f"{name!r} is also a name under {section}.", "Rename one: clients ask for both alike."
                )
        prompt = self._reference((*at, "prompt"), app.prompt, "prompts", file.prompts, prompts, load_prompt)
        policy = app.policy
        if policy is not None:
            policy = self._reference(
                (*at, "policy"), policy, "policies", file.policies, policies, load_policy
            )
        if app.corpus is not None and app.corpus not in file.knowledge:
            fix = did_you_mean(app.corpus, file.knowledge)
            self._wrong((*at, "corpus"), f"no corpus is called {app.corpus!r} under knowledge.", fix)
        if prompt in prompts:
            self._check_variables((*at, "prompt"), prompts[prompt], app.corpus)
        retrieval = RetrievalSettings(**app.retrieval.model_dump())
        generation = GenerationSettings(**app.generation.model_dump())
        return AppSpec(name, prompt, _model_name(app.model, file), app.corpus, policy, retrieval, generation)

    def _reference(
        self,
        at: KeyPath,
        given: str,
        section: str,
        declared: Mapping[str, str],
        loaded: dict[str, T],
        load: Callable[[Path, str], T],
    ) -> str:
        """The name of what an app refers to, by name or by path; a path's file is loaded under its stem."""
        if given in declared:
            return given
        if "/" not in given and not Path(given).suffix:
            kind = {"prompts": "prompt", "policies": "policy"}[section]
            self._wrong(at, f"no {kind} is called {given!r}.", did_you_mean(given, declared))
            return given
        known = self._by_path.get((section, (self._root / given).resolve()))
        if known is not None:
            return known
        stem = Path(given).stem
        name = given if stem in loaded or stem in declared else stem
        item = self._load(section, at, name, given, load)
        if item is not None:
            loaded[name] = item
        return name

    def _check_variables(self, at: KeyPath, prompt: Prompt, corpus: str | None) -> None:
        for name, variable in prompt.variables.items():
            if variable.required and name not in REQUEST_VARIABLES:
                fix = "Give it a default; a request brings question, passages and history."
                self._wrong(
                    at, f"prompt {prompt.name} needs a variable {name!r} that no request brings.", fix
                )
        if corpus is not None and "passages" not in prompt.variables:
            fix = "Declare `passages: passages` in the prompt and use it, or leave out the corpus."
            self._wrong(at, f"the app has a corpus, but prompt {prompt.name} does not use passages.", fix)
        if corpus is None and "passages" in prompt.variables and prompt.variables["passages"].required:
            fix = "Name a corpus, or take the variable out of the prompt."
            self._wrong(at, f"prompt {prompt.name} wants passages, but the app has no corpus.", fix)

    def _knowledge(self, file: ProjectFile) -> dict[str, CorpusSource]:
        corpora = {}
        for name, corpus in file.knowledge.items():
            paths = [(self._root / path).resolve() for path in corpus.paths]
            for index, path in enumerate(paths):
                if not path.exists():
                    at: KeyPath = ("knowledge", name, "paths", index)
                    fix = "Make it, or take it out of the list."
                    self._wrong(at, f"there is no file or folder {corpus.paths[index]}.", fix)
            corpora[name] = CorpusSource(
                tuple(paths),
                tuple(corpus.include) or ("**/*",),
                tuple(corpus.exclude),
                corpus.chunk_chars,
                frozenset(corpus.groups),
            )
        return corpora

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            spec = SPECS.get(name)
            if spec is None:
                self._wrong(("settings", name), "no such setting.", did_you_mean(str(name), SPECS))
                continue
            try:
                spec.parse(str(value).lower() if isinstance(value, bool) else str(value))
            except ValueError as error:
                self._wrong(("settings", name), f"{error}.", spec.help)


def _model_name(given: str, file: ProjectFile) -> str:
    """What the release pins: a route's own target, so that changing the route makes a new release."""
    route = file.models.get(given)
    return given if route is None else f"{route.provider}/{route.model}"


def _load_dataset(path: Path, _name: str) -> DatasetFile:
    return DatasetFile(path, path.read_text(encoding="utf-8"), load_dataset(path))


# --- schema mistakes in plain words ------------------------------------------------------------------------


def _explained(problem: Mapping[str, Any]) -> tuple[KeyPath, str, str | None]:
    """(where, what is wrong, what would be right) of one Pydantic error."""
    at = tuple(part for part in problem["loc"] if part != "[key]")
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return at, "is not known here.", did_you_mean(str(at[-1]), _known_keys(at[:-1]))
    if kind == "missing":
        return at, "is missing.", f"Add `{at[-1]}:`."
    if kind == "literal_error":
        return at, f"{problem['input']!r} is not possible.", f"Use {context['expected']}."
    if kind == "string_pattern_mismatch":
        return at, f"{problem['input']!r} is not written right.", _PATTERN_HINTS[context["pattern"]]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return at, "must be a mapping of `key: value`.", None
    return at, f"{problem['msg'].replace('Input should', 'should')}, but is {_shown(problem['input'])}.", None


_PATTERN_HINTS = {
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "Use small letters, digits, `-`, `_` and `.`, at most 64.",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "Use letters, digits, `-`, `_` and `.`, at most 64.",
    r"^https?://": "Begin with http:// or https://.",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _known_keys(at: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows at this place."""
    schema = project_schema()
    node: Mapping[str, Any] = schema
    for part in at:
        of_any_name: list[Mapping[str, Any] | None] = [
            *node.get("patternProperties", {}).values(),
            node.get("items"),
        ]
        exact: Mapping[str, Any] | None = node.get("properties", {}).get(part)
        node = exact or next((found for found in of_any_name if found), {})
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return sorted(node.get("properties", {}))
