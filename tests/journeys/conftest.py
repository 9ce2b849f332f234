"""A small project of one's own, and a server on it: what the journeys share."""

import os
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import CliRunner, Result

from mainstay.cli.context import actor
from mainstay.cli.main import app
from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.services import publish

LEAVE = """# Leave

## Annual leave

Every full-time employee has 27 days of paid annual leave a year.
Leave requests go to the shift planner at least four weeks ahead.

## Sick leave

A sick employee calls the control room before the shift begins.
"""
FUEL = """# Fuel

The grey fuel cards stop working on 30 September.
New fuel cards are blue and are handed out by the depot office.
"""

Cli = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, models_dir: Path) -> Iterator[Path]:
    """`mainstay init bot`, on `local/extractive`, with two documents; the current folder is inside."""
    folder = tmp_path / "bot"
    with chdir(tmp_path):
        assert CliRunner().invoke(app, ["init", "bot"]).exit_code == 0
    file = folder / "mainstay.yaml"
    file.write_text(file.read_text().replace("model: local/smollm2", "model: local/extractive"))
    (folder / "knowledge" / "leave.md").write_text(LEAVE)
    (folder / "knowledge" / "fuel.md").write_text(FUEL)
    os.environ.setdefault("MAINSTAY_MODELS_DIR", str(models_dir))
    with chdir(folder):
        yield folder


@pytest.fixture
def server(project: Path) -> Iterator[RunningServer]:
    """The project published and served on a free port."""
    loaded = load_project(project)
    with RunningServer(load_settings({"port": 0}), loaded) as running:
        publish(running.services, actor(), loaded)
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    """The official SDK, pointed at the server."""
    with OpenAI(base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def cli() -> Cli:
    """Runs a `mainstay` command in this process."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run
