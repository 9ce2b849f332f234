"""What can be said of a project before anything is asked of it."""

from __future__ import annotations

import os

from mainstay.core.config import Settings
from mainstay.core.errors import MainstayError
from mainstay.core.yamlfile import load_yaml
from mainstay.delivery import Project
from mainstay.models import Catalog, EngineSettings, read_models_config


def project_catalog(settings: Settings, project: Project | None) -> Catalog:
    """The model names that stand for something here; to look at, not to ask. Needs no data folder."""
    engine = EngineSettings(
        settings.engine_threads,
        settings.engine_slots,
        settings.engine_context,
        settings.engine_memory_mb,
        settings.engine_idle_unload_s,
    )
    config = read_models_config(None if project is None else load_yaml(project.path))
    return Catalog(config, settings.models_dir, os.environ, engine)


def model_warnings(settings: Settings, project: Project) -> tuple[str, ...]:
    """A line for each app whose model name stands for nothing here: what is wrong, and how to mend it.

    No error: the key or the model may be there where the release will run.
    """
    try:
        catalog = project_catalog(settings, project)
    except MainstayError as error:
        return (str(error),)
    found = ((name, _problem(catalog, app.model)) for name, app in project.apps.items())
    return tuple(f"App {name!r} cannot answer here: {problem}" for name, problem in found if problem)


def _problem(catalog: Catalog, model: str) -> str | None:
    try:
        catalog.resolve(model)
    except MainstayError as error:
        return str(error)
    return None
