"""Mistakes in files that people write: each with its place, what is wrong and what would be right; all at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mainstay.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Mistake:
    """`file` and `line` are None when `what` names the place itself."""

    file: Path | None
    line: int | None
    what: str
    fix: str | None = None

    @property
    def message(self) -> str:
        place = "" if self.file is None else str(self.file)
        place += f", line {self.line}" if place and self.line is not None else ""
        return f"{place}: {self.what}" if place else self.what

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class ProjectError(ConfigError):
    """Every mistake of one reading, in `mistakes`, in the order of files and lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        if len(self.mistakes) == 1:
            super().__init__(self.mistakes[0].message, fix=self.mistakes[0].fix)
            return
        listed = "\n".join(f"- {mistake}" for mistake in self.mistakes)
        super().__init__(f"There are {len(self.mistakes)} mistakes:\n{listed}")


def mistakes_of(error: ConfigError) -> tuple[Mistake, ...]:
    """What an error of any layer says, as mistakes."""
    if isinstance(error, ProjectError):
        return error.mistakes
    return (Mistake(None, None, error.message, error.fix),)
