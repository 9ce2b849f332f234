"""Tolerant readers of attribute values: the right type or None, never an exception."""

from __future__ import annotations

import math
from typing import Any

import orjson

from mainstay.observe.types import AttributeValue

INT64_MAX = 2**63 - 1


def text(value: Any) -> str | None:
    """A non-empty string; numbers as text."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    """A 64-bit integer, also from `"12"` and 12.0. A negative or fractional count is unknown."""
    found = number(value)
    if found is None or found < 0 or found != int(found) or found > INT64_MAX:
        return None
    return int(value) if isinstance(value, int) else int(found)


def number(value: Any) -> float | None:
    """A finite number, also from text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def text_list(value: Any) -> list[AttributeValue] | None:
    """A list of strings, also from one string or a JSON array in a string."""
    found = json_of(value)
    if isinstance(found, list):
        return [str(item) for item in found] or None
    return [value] if isinstance(value, str) and value else None


def json_of(value: Any) -> Any:
    """The structure in a JSON string, the structure itself, or None. Plain text is None."""
    if isinstance(value, dict | list):
        return value
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
