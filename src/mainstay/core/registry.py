"""A registry of adapters by name: filled by decorators, open to third parties through entry points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from mainstay.core.errors import ConfigError, NotFound, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Name → adapter class or factory. A duplicate name stops start-up and names both files."""

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self._kind = kind
        self._group = entry_point_group
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def keep(item: T) -> T:
            if name in self._items and self._items[name] is not item:
                raise ConfigError(
                    f"Two {self._kind}s are called {name!r}: {_where(self._items[name])} and {_where(item)}.",
                    fix="Rename one of them.",
                )
            self._items[name] = item
            return item

        return keep

    def load_entry_points(self) -> None:
        """Import third-party adapters; each entry point's module registers itself."""
        if self._group is not None:
            for point in entry_points(group=self._group):
                point.load()

    def get(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise NotFound(
                f"No {self._kind} is called {name!r}.", fix=did_you_mean(name, self._items)
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        return name in self._items


def _where(item: object) -> str:
    try:
        return inspect.getfile(item)  # type: ignore[arg-type]
    except TypeError:
        return repr(item)
