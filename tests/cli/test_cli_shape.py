"""The command line as a whole: every command explains itself and speaks JSON."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from mainstay.cli.main import app

ROOT = Path(__file__).parents[2]


def commands(
    group: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
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
