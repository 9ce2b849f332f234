"""`value`: a dataclass for nouns that are made many times a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=False)
def value(cls: type[T]) -> type[T]:
    """A slotted dataclass that type checkers hold to be frozen, as `dataclass(frozen=True, slots=True)` is.

    At run time it is not: to set the fields of a frozen one costs four times as much, which is felt where
    every token makes one. Hashable as a frozen one is; never change one.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
