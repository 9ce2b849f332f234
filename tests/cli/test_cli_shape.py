"""The command line as a whole: every command explains itself and speaks JSON."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from mainstay.cli.lazy import Entry, LazyCommand
from mainstay.cli.main import COMMANDS, app
from mainstay.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
HEAVY = ("fastapi", "aiohttp", "onnxruntime", "trafilatura", "uvicorn", "openai", "numpy", "jinja2")


def commands(
    group: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    group = group.load() if isinstance(group, LazyCommand) else group
    children = getattr(group, "commands", None)
    if children is None:
        yield path, group
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


ALL = list(commands(typer.main.get_command(app)))
NAMES = [" ".join(path) for path, _ in ALL]


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_every_command_says_what_it_does_and_takes_json(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert command.help
    assert any("--json" in parameter.opts for parameter in command.params)


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    unexplained = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)]
    assert unexplained == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_documented(name: str) -> None:
    assert f"`mainstay {name}" in (ROOT / "docs" / "reference" / "commands.md").read_text()


def test_the_help_page_groups_commands_by_what_people_want() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for title in ("Start", "Apps and knowledge", "See and measure", "Administer"):
        assert title in shown.output


@pytest.mark.parametrize("entry", COMMANDS, ids=[e.name for e in COMMANDS])
def test_the_help_page_says_what_a_command_says_of_itself(entry: Entry) -> None:
    own = " ".join(LazyCommand(entry).load().help.split("\n\n")[0].split())
    assert entry.help == own


def test_the_panels_of_the_help_page_stand_in_the_order_of_use() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    titles = ("─ Start ─", "─ Apps and knowledge ─", "─ See and measure ─", "─ Administer ─")
    places = [shown.index(title) for title in titles]
    assert places == sorted(places)


def test_a_mistyped_command_is_told_the_nearest() -> None:
    refused = CliRunner().invoke(app, ["relase", "list"])
    assert refused.exit_code == 2
    assert "'release'" in refused.output


@pytest.mark.parametrize(
    ("typed", "offered"), [("mainstay rel", "release"), ("mainstay release pro", "promote")]
)
def test_the_shell_completes_nouns_and_verbs(typed: str, offered: str) -> None:
    environment = {
        "_MAINSTAY_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    assert offered in CliRunner().invoke(app, [], prog_name="mainstay", env=environment).output


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["config", "list"]], ids=" ".join)
def test_a_light_command_loads_no_heavy_part(words: list[str], tmp_path: Path) -> None:
    assert loaded_by(words, tmp_path) & {*HEAVY, "sqlalchemy"} == set()


@pytest.mark.parametrize("words", [["audit", "list"], ["key", "list"], ["trace", "list"]], ids=" ".join)
def test_a_command_on_what_is_stored_loads_neither_models_nor_gateway(
    words: list[str], tmp_path: Path
) -> None:
    loaded_by(["key", "create", "shop"], tmp_path)  # the first command makes the database
    assert loaded_by(words, tmp_path) & {*HEAVY, "alembic"} == set()


def loaded_by(words: list[str], folder: Path) -> set[str]:
    """Names of the modules a command has imported when it ends, in a process of its own."""
    code = (
        "import atexit, sys; atexit.register(lambda: print('\\n' + ' '.join(sys.modules)));"
        "from mainstay.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "words",
    [["trace", "list"], ["audit", "list"], ["key", "list"], ["release", "list"], ["ask", "bot", "Who?"]],
    ids=" ".join,
)
def test_a_command_that_reads_makes_no_data_folder_where_there_is_no_project(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAINSTAY_DATA_DIR", raising=False)
    with chdir(tmp_path):
        refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigError)
    assert "mainstay init" in str(refused.exception.fix)
    assert list(tmp_path.iterdir()) == []


def test_models_are_listed_where_there_is_no_project(tmp_path: Path) -> None:
    with chdir(tmp_path):
        listed = CliRunner().invoke(app, ["models", "list"])
    assert "local/extractive" in listed.output
    assert list(tmp_path.iterdir()) == []
