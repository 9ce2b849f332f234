"""What a check is, and the registry of checks by name (`mainstay.guard_checks` entry points add more)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mainstay.core.registry import Registry
from mainstay.guard.types import CheckRule, Rail

OptionParser = Callable[[object], object]
"""Checks one option's value; raises ValueError that says what it must be."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A check saw `kind` at text[start:end]; `label` replaces it when masked ("" removes it)."""

    kind: str
    start: int
    end: int
    score: float
    label: str


class Check(Protocol):
    """One kind of danger. `order`: lower runs first. `scored`: its rules may set a threshold."""

    name: ClassVar[str]
    order: ClassVar[int]
    scored: ClassVar[bool]
    options: ClassVar[Mapping[str, OptionParser]]

    def find(self, text: str, rail: Rail, rule: CheckRule) -> list[Hit]:
        """Hits in code points of `text`, from which hidden characters were removed (but for the first check)."""
        ...


CheckFactory = Callable[[], Check]
checks: Registry[CheckFactory] = Registry("guard check", "mainstay.guard_checks")


def one_of(*known: str) -> OptionParser:
    """A list of names out of `known`."""

    def parse(value: object) -> object:
        names = string_list(value)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"does not know {unknown[0]!r}; it knows {', '.join(known)}")
        return names

    return parse


def string_list(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return tuple(value)


def patterns(value: object) -> tuple[str, ...]:
    """A list of regular expressions."""
    sources = string_list(value)
    for source in sources:
        try:
            re.compile(source)
        except re.error as error:
            raise ValueError(f"holds {source!r}, which is no regular expression: {error}") from error
    return sources


def on_error(value: object) -> object:
    if value not in ("block", "flag"):
        raise ValueError("must be block or flag")
    return value


COMMON_OPTIONS: Mapping[str, OptionParser] = {"on_error": on_error}
