"""Which keywords of JSON Schema Gemini's structured output keeps to. It ignores the others without a word.

Source: Gemini API reference (v1beta), `GenerationConfig.responseJsonSchema`, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_KEPT: Final = frozenset(
    {
        "$id",
        "$defs",
        "$ref",
        "$anchor",
        "type",
        "format",
        "title",
        "description",
        "enum",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "anyOf",
        "oneOf",
        "properties",
        "additionalProperties",
        "required",
        "propertyOrdering",
    }
)
_SAYS_NOTHING: Final = frozenset(
    {"$schema", "$comment", "default", "deprecated", "examples", "readOnly", "writeOnly"}
)
"""Notes for people: a value is no less valid without them."""

_NAMED: Final = ("properties", "$defs")
_LISTED: Final = ("anyOf", "oneOf", "prefixItems")
_NESTED: Final = ("items", "additionalProperties")


def unknown_keyword(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """(where, keyword) of a keyword that Gemini would ignore, e.g. (".properties.name", "pattern")."""
    waiting = [("", schema)]
    while waiting:
        path, current = waiting.pop()
        for keyword in current:
            if keyword not in _KEPT and keyword not in _SAYS_NOTHING:
                return path, keyword
        waiting += [(f"{path}.{name}", inner) for name, inner in _inner(current)]
    return None


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for keyword in _NAMED:
        for name, inner in _members(schema.get(keyword)):
            yield f"{keyword}.{name}", inner
    for keyword in _LISTED:
        listed = schema.get(keyword)
        for index, inner in enumerate(listed if isinstance(listed, list | tuple) else ()):
            if isinstance(inner, Mapping):
                yield f"{keyword}[{index}]", inner
    for keyword in _NESTED:
        nested = schema.get(keyword)
        if isinstance(nested, Mapping):
            yield keyword, nested


def _members(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield from ((name, inner) for name, inner in value.items() if isinstance(inner, Mapping))
