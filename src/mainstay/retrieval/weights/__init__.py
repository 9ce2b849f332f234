"""Fitted weights that come with the package, one JSON file a model, each with its card inside."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import orjson


def read_weights(name: str) -> dict[str, Any]:
    """The content of `NAME.json`."""
    stored: dict[str, Any] = orjson.loads((files(__package__) / f"{name}.json").read_bytes())
    return stored
