"""What a check is, and the registry of checks by name (`mainstay.guard_checks` entry points add more)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from mainstay.core.registry import Registry
from mainstay.core.values import value
from mainstay.guard.types import CheckRule, Rail

OptionParser = Callable[[object], object]
"""Checks one option's value; raises ValueError that says what it must be."""


@value
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


class PreparedCheck(Protocol):
    """A check with one rule's options read, for one rail.

    `conditions`: RE2 patterns over the text's view (`mainstay.guard.prefilter`); every hit of the check fulfils one
    of them, and each call is told the indexes of those that hold. None may ask where the text begins or ends (`^`,
    `\\z`): texts are looked at together, one a line, and growing ones from their middle on.
    `open_conditions`: patterns that end in `\\z`; where a hit may begin that is not whole at the end of a text that
    still grows, one of them matches.
    `companions`: patterns by the index of a condition; a hit of that condition needs one of its companion in the same
    text, too. Nearly every text holds some long number, and few tell that it is one of those that count.
    """

    conditions: tuple[str, ...]
    companions: Mapping[int, str]
    open_conditions: tuple[str, ...]

    def find(self, text: str, seen: bytes, fired: Sequence[int]) -> list[Hit]:
        """What `Check.find` gives, quickly. `seen` is the view of `text`."""
        ...

    def held_from(self, text: str, seen: bytes, fired: Sequence[int]) -> int:
        """Where what follows `text` may still change a hit, or make one, that `open_conditions` do not tell."""
        ...


@runtime_checkable
class QuickCheck(Protocol):
    """A check that may also be prepared: it costs little where there is nothing to find, and guards streams."""

    def prepare(self, rail: Rail, rule: CheckRule) -> PreparedCheck: ...


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
