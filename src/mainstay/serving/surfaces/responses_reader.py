"""Reads a JSON object field by field, so that every mistake is told with its path, e.g. `input[2].content[0].type`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from mainstay.serving.errors import BadField

NESTING_MAX = 100
"""Levels of a schema or a tool's parameters; what is deeper could not be written as JSON again."""


class Fields:
    """One object of a request body. A field that is null counts as not given; `unread` are those nobody asked for."""

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, Mapping):
            raise BadField(where or "body", "must be an object.")
        self._given: dict[str, Any] = {name: item for name, item in value.items() if item is not None}
        self._where = where
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def refuse(self, name: str, problem: str, fix: str | None = None) -> NoReturn:
        raise BadField(self.path(name), problem, fix=fix)

    def take(self, name: str) -> Any:
        """The value as it is; None when it was not given."""
        self._read.add(name)
        return self._given.get(name)

    def text(self, name: str, *, characters_max: int | None = None) -> str | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, "must be a string.")
        if characters_max is not None and len(value) > characters_max:
            self.refuse(name, f"has {len(value)} characters; at most {characters_max} are allowed.")
        return value

    def needed_text(self, name: str, *, characters_max: int | None = None) -> str:
        value = self.text(name, characters_max=characters_max)
        if value is None or not value.strip():
            self.refuse(name, "must be a string that is not empty.")
        return value

    def one_of(self, name: str, allowed: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in allowed:
            self.refuse(name, f"must be one of {', '.join(allowed)}; got {clipped(value)}.")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false.")
        return value

    def whole(self, name: str, low: int, high: int | None = None) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, "must be a whole number.")
        if value < low or (high is not None and value > high):
            self.refuse(
                name, f"must be at least {low}." if high is None else f"must be from {low} to {high}."
            )
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(name, "must be a number.")
        if not low <= value <= high:
            self.refuse(name, f"must be from {low} to {high}.")
        return float(value)

    def array(self, name: str) -> list[Any] | None:
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, "must be a list.")
        return value

    def nested(self, name: str) -> Fields | None:
        value = self.take(name)
        return None if value is None else Fields(value, self.path(name))

    def plain(self, name: str) -> Mapping[str, Any] | None:
        """An object whose inside is the caller's own, e.g. a JSON Schema."""
        value = self.plain_value(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "must be an object.")
        return value

    def ignore(self, *names: str) -> None:
        """Fields that say nothing to a model: an item's own id and status, an SDK's parsed copy."""
        self._read.update(names)

    def rest(self) -> dict[str, Any]:
        """What nobody asked for, to be passed on. Raises BadField when it could not be written as JSON again."""
        return {name: self.plain_value(name) for name in self.unread()}

    def plain_value(self, name: str) -> Any:
        value = self.take(name)
        if is_deep(value, NESTING_MAX):
            self.refuse(name, f"is nested more than {NESTING_MAX} levels deep.")
        return value

    def unread(self) -> dict[str, Any]:
        return {name: value for name, value in self._given.items() if name not in self._read}

    def refuse_unread(self, neutral: Mapping[str, tuple[Any, ...]] | None = None) -> None:
        """What was not understood is refused, unless its value asks for nothing (`neutral`)."""
        for name, value in self.unread().items():
            if value not in (neutral or {}).get(name, ()):
                self.refuse(name, "is not supported.", fix=f"Leave {name} out.")


def clipped(text: str) -> str:
    """A caller's own text, short enough for an error message."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def is_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deep(item, levels - 1) for item in inner)
