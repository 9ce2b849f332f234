"""JSON text under a guard: judged as its reader will decode it, and masked so that it stays JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from mainstay.guard import SEVERITY
from mainstay.guard.types import Verdict

_LISTS = (list, tuple)
CheckText = Callable[[str], Verdict]


def strings_of(value: Any) -> set[str]:
    """Every string of a decoded JSON value, names of members among them."""
    found: set[str] = set()
    waiting = [value]
    for item in waiting:  # which grows meanwhile
        if isinstance(item, str):
            found.add(item)
        elif isinstance(item, dict):
            found.update(item)
            waiting += item.values()
        elif isinstance(item, _LISTS):
            waiting += item
    return found


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every string changed; the very same object where nothing of it was."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        changed = {change(name): with_strings(item, change) for name, item in value.items()}
        return value if changed == value else changed
    if isinstance(value, list):
        items = [with_strings(item, change) for item in value]
        return value if items == value else items
    return value


def check_json(text: str, check: CheckText) -> Verdict:
    """The verdict on JSON text. `\\u0040` is an @ to whoever decodes it, so it is one here too.

    Where masking the text breaks the JSON (a number became a label), each value is masked for itself.
    """
    verdict = check(text)
    if "\\" not in text and verdict.action in ("allow", "flag"):
        return verdict
    try:
        decoded = orjson.loads(text)
    except orjson.JSONDecodeError:
        return verdict
    if "\\" in text:
        plain = check(orjson.dumps(decoded).decode())
        if SEVERITY[plain.action] > SEVERITY[verdict.action]:
            verdict = plain
    if verdict.action in ("allow", "flag", "block") or _is_json(verdict.text):
        return verdict
    return replace(verdict, text=_masked_values(decoded, check))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _masked_values(decoded: Any, check: CheckText) -> str:
    def masked(value: Any) -> Any:
        if isinstance(value, dict):
            return {check(name).text: masked(item) for name, item in value.items()}
        if isinstance(value, list):
            return [masked(item) for item in value]
        if isinstance(value, str):
            return check(value).text
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = orjson.dumps(value).decode()
            shown = check(written).text
            return value if shown == written else shown
        return value

    text = orjson.dumps(masked(decoded)).decode()
    # What is told by two values together (a name and its secret) is found in the whole alone.
    return text if check(text).action in ("allow", "flag") else "{}"
