"""JSON of Mainstay's own nouns: dataclasses, mappings, sets, paths; secrets stay hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import orjson

from mainstay.core.secret import Secret


def plain(value: Any) -> Any:
    """A value made of dict, list, str, numbers, bool and None. Raises TypeError for what has no such form."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [plain(v) for v in (value if isinstance(value, list | tuple) else sorted(value))]
    if isinstance(value, Path | Secret):
        return str(value) if isinstance(value, Path) else "***"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any, *, indent: bool = False) -> bytes:
    return orjson.dumps(plain(value), option=orjson.OPT_INDENT_2 if indent else None)
