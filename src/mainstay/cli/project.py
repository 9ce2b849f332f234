"""`mainstay init | plan | apply | schema`: a project as files, and the versions made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import orjson
import typer

from mainstay.cli.context import actor, local_services, project_here
from mainstay.cli.output import JsonFlag, emit, out, progress_bar, say, table, warn
from mainstay.core.config import Settings, load_settings
from mainstay.core.errors import Conflict, InvalidInput
from mainstay.delivery import Change, Project, project_schema
from mainstay.knowledge import FailedDocument
from mainstay.services import Published, model_warnings, publish

REASON_CHARS = 120
MARKS = {"create": "+", "update": "~", "none": " "}


def init(
    folder: Annotated[Path, typer.Argument(help="New folder; its name becomes the app's name.")],
    json: JsonFlag = False,
) -> None:
    """Make a new project: a commented mainstay.yaml, a prompt, a policy and a knowledge folder."""
    name = folder.absolute().name
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise InvalidInput(
            f"{name!r} cannot name an app.",
            fix="Use lower-case letters, digits and dashes, e.g. support-bot.",
        )
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty.", fix="Name a new folder.")
    made = sorted(_copy(files("mainstay.cli") / "templates" / "project", folder, name))
    schema_path = folder / ".mainstay" / "schema.json"
    schema_path.parent.mkdir(parents=True, exist_ok=True)
    schema_path.write_bytes(orjson.dumps(project_schema(), option=orjson.OPT_INDENT_2))

    def render() -> None:
        for path in made:
            out.print(f"  {path}", markup=False)
        say(f"\nNext: cd {folder}, put your documents in knowledge/, then: mainstay up")

    emit({"project": name, "files": [str(p) for p in made]}, json, render)


def _copy(source: Traversable, target: Path, name: str) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for item in source.iterdir():
        place = target / (".gitignore" if item.name == "gitignore" else item.name)
        if item.is_dir():
            made += _copy(item, place, name)
        else:
            place.write_text(Template(item.read_text("utf-8")).safe_substitute(NAME=name), "utf-8")
            made.append(place)
    return made


def plan(json: JsonFlag = False) -> None:
    """Show what `apply` would change, and change nothing."""
    project = project_here(required=True)
    assert project is not None
    warn_of_models(load_settings(), project)
    with local_services() as services:
        shown = services.delivery.plan(project)
    emit(shown, json, lambda: render_changes(shown.changes))


def render_changes(changes: Sequence[Change]) -> None:
    """One line a change, then its diff."""
    for change in changes:
        out.print(f"{MARKS[change.action]} {change.kind} {change.name}  {change.summary}", markup=False)
        if change.diff:
            out.print(change.diff.rstrip("\n"), markup=False)
    if all(c.action == "none" for c in changes):
        say("Nothing to change.")


def apply(
    note: Annotated[str, typer.Option(help="Why; kept with the release.")] = "",
    promote: Annotated[
        bool, typer.Option("--promote", help="Move production to the new release, too.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Sync the knowledge and make new versions of what changed; unchanged input makes none."""
    project = project_here(required=True)
    assert project is not None
    warn_of_models(load_settings(), project)
    with local_services() as services, progress_bar("apply") as bar:
        published = publish(services, actor(), project, note=note, promote=promote, progress=Bar(bar))
    emit(published, json, lambda: render_published(published))


def warn_of_models(settings: Settings, project: Project) -> None:
    """Say which apps name a model that stands for nothing here."""
    for warning in model_warnings(settings, project):
        warn(warning)


class Bar:
    """Shows each stage of publishing as a bar of its own."""

    def __init__(self, progress: object) -> None:
        from rich.progress import Progress

        assert isinstance(progress, Progress)
        self._progress = progress
        self._tasks: dict[str, object] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)  # type: ignore[arg-type]


def render_published(published: Published) -> None:
    rows = []
    for report in published.corpora:
        state = "new" if report.created else "unchanged"
        counts = (
            len(report.added),
            len(report.changed),
            len(report.removed),
            report.unchanged,
            len(report.failed),
        )
        rows.append((report.corpus, f"#{report.snapshot.number} ({state})", *counts))
    table(
        ["corpus", "snapshot", ">added", ">changed", ">removed", ">unchanged", ">failed"],
        rows,
        "The project has no knowledge.",
    )
    for report in published.corpora:
        for line in told_failures(report.failed):
            say(line)
    for release in published.releases:
        out.print(f"release {release.app} r{release.number} {release.digest[:19]}", markup=False)
    if not published.releases:
        say("No new release: nothing changed.")


def told_failures(failed: Sequence[FailedDocument]) -> list[str]:
    """One short line a document, then each way to mend them once."""
    lines = [f"not ingested: {f.uri}: {_one_sentence(f.reason)}" for f in failed]
    return lines + [f"  {fix}" for fix in dict.fromkeys(f.fix for f in failed) if fix]


def _one_sentence(reason: str) -> str:
    """On one line, at most REASON_CHARS, with one full stop: parsers end some of their messages with their own."""
    text = " ".join(reason.split()).rstrip(".")
    return text[: REASON_CHARS - 1] + "…" if len(text) > REASON_CHARS else text + "."


def schema(json: JsonFlag = True) -> None:
    """Print the JSON Schema of mainstay.yaml, for editors."""
    data = project_schema()
    emit(data, True, lambda: None)
