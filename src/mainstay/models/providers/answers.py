"""Small readings of a vendor's JSON, and what is raised when it is not what was documented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mainstay.models.tokens import believable_count


class Malformed(ValueError):
    """An event or answer that is not of the documented shape."""


class NotJson(Malformed):
    """It is no JSON at all."""


def json_object(data: bytes, *, listed: bool = False) -> Mapping[str, Any]:
    """Raises NotJson, Malformed. `listed`: it may also be the one member of a list."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"not JSON: {data[:80]!r}") from error
    if listed and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise Malformed(f"no JSON object: {data[:80]!r}")
    return value


def count_of(holder: object, name: str) -> int | None:
    """A count of tokens; None when absent, or when it cannot be one."""
    if not isinstance(holder, dict) or (value := holder.get(name)) is None:
        return None
    return believable_count(value)


def text_of(holder: Mapping[str, Any], name: str) -> str:
    """ "" for what is no text."""
    value = holder.get(name)
    return value if isinstance(value, str) else ""
