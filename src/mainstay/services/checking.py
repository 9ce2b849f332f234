"""What can be said of a project before anything is asked of it."""

from __future__ import annotations

import os

from mainstay.core.config import Settings
from mainstay.core.errors import MainstayError
from mainstay.core.yamlfile import load_yaml
from mainstay.delivery import Project
from mainstay.models import Catalog, EngineSettings, read_models_config


def model_warnings(settings: Settings, project: Project) -> tuple[str, ...]:
    """A line for each app whose model name stands for nothing here: what is wrong, and how to mend it.

    No error: the key or the model may be there where the release will run.
    """
    engine = EngineSettings(settings.engine_threads, settings.engine_slots, settings.engine_context)
    try:
        catalog = Catalog(
            read_models_config(load_yaml(project.path)), settings.models_dir, os.environ, engine
        )
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
