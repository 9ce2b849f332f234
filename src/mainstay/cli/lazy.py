"""Commands that are imported when they run: `mainstay --help` knows them by name, panel and one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives. `home` is `module:name` below `mainstay.cli`: a function, or a `typer.Typer` with a noun's verbs.

    `help` is the first line of the command's own help; a test holds the two together.
    """

    name: str
    home: str
    panel: str
    help: str


class LazyCommand(TyperCommand):
    """Stands for a command in help pages and completion; gives way to it when it is used."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(name=entry.name, callback=None, help=entry.help, rich_help_panel=entry.panel)
        self.entry = entry

    def load(self) -> Any:
        """The command itself, made by Typer as if it had been added to the program at once."""
        module, _, attribute = self.entry.home.partition(":")
        found = getattr(import_module(f"mainstay.cli.{module}"), attribute)
        host = typer.Typer(add_completion=False, rich_markup_mode="rich")
        host.callback()(_nothing)  # a host with a callback stays a group, also around one command
        if isinstance(found, typer.Typer):
            host.add_typer(found, name=self.entry.name)
        else:
            host.command(self.entry.name)(found)
        return typer.main.get_group(host).commands[self.entry.name]

    @property
    def commands(self) -> Any:
        """A noun's verbs, for who walks the program; a command that is no noun has no such attribute."""
        return self.load().commands

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Where running, `--help` and completion all begin: from here on it is the command itself."""
        return self.load().make_context(*args, **more)


def lazy_group(entries: Sequence[Entry]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=…)`: a group of these commands, in this order."""

    class LazyGroup(TyperGroup):
        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            for entry in entries:
                self.add_command(LazyCommand(entry))

    return LazyGroup


def _nothing() -> None:
    """A host does nothing itself."""
