"""The filter box of the trace list: `app:handbook-bot status:error ms>2000 cost>0.01 "late ferry"`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from mainstay.core.errors import InvalidInput
from mainstay.core.money import nusd_from_usd
from mainstay.observe.types import TraceFilter

_TOKEN = re.compile(r'"([^"]*)"|(\S+)')
_TERM = re.compile(r"([A-Za-z_]+)([:><=])(?!//)(.*)")
"""What looks like a filter; the address in a question does not."""

COMPLETIONS = (
    "status:error",
    "status:ok",
    "guarded:yes",
    "ms>2000",
    "cost>0.01",
    "app:",
    "release:",
    "model:",
    "user:",
)


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """What the box says. `problems` tell in words which terms were left out and why."""

    text: str
    filter: TraceFilter
    problems: tuple[str, ...] = ()


def parse(text: str) -> TraceQuery:
    """Terms it knows become filters, all else is searched for in questions and answers.

    What looks like a filter and is none is left out and told, not searched for.
    """
    wanted, words, problems = TraceFilter(), [], []
    for match in _TOKEN.finditer(text):
        term = None if match[1] is not None else _TERM.fullmatch(match[2])
        if term is None:
            words.append(match[1] if match[1] is not None else match[2])
            continue
        if term[1] + term[2] not in _TERMS:
            problems.append(f"{match[2]} is no filter and was left out: {_KNOWN}")
            continue
        try:
            wanted = _TERMS[term[1] + term[2]](wanted, _value(term[3]))
        except (ValueError, InvalidOperation, InvalidInput):
            problems.append(f"{match[2]} was left out: {_HINTS[term[1]]}")
    free = " ".join(w for w in words if w) or None
    return TraceQuery(text, replace(wanted, text=free), tuple(problems))


def _value(text: str) -> str:
    if not text.strip('"'):
        raise ValueError("nothing stands after the sign")
    return text.strip('"')


def _release(wanted: TraceFilter, value: str) -> TraceFilter:
    return replace(wanted, release=int(value.removeprefix("r")))


def _status(wanted: TraceFilter, value: str) -> TraceFilter:
    if value == "ok":
        return replace(wanted, status="ok")
    if value == "error":
        return replace(wanted, status="error")
    raise ValueError(value)


def _guarded(wanted: TraceFilter, value: str) -> TraceFilter:
    return replace(
        wanted, guarded={"yes": True, "no": False}[value] if value in ("yes", "no") else int(value) > 0
    )


def _cost(wanted: TraceFilter, value: str) -> TraceFilter:
    return replace(wanted, cost_nusd_min=nusd_from_usd(Decimal(value.lstrip("$"))))


def _slow(wanted: TraceFilter, value: str) -> TraceFilter:
    return replace(wanted, duration_ms_min=float(value.removesuffix("ms")))


_TERMS: Mapping[str, Callable[[TraceFilter, str], TraceFilter]] = {
    "app:": lambda f, v: replace(f, app=v),
    "release:": _release,
    "model:": lambda f, v: replace(f, model=v),
    "user:": lambda f, v: replace(f, user=v),
    "status:": _status,
    "guarded:": _guarded,
    "cost>": _cost,
    "ms>": _slow,
}

_HINTS = {
    "app": "write a name, e.g. app:my-bot.",
    "model": "write a name, e.g. model:local/smollm2.",
    "user": "write an id, e.g. user:u-17.",
    "release": "write a number, e.g. release:2.",
    "status": "write status:ok or status:error.",
    "guarded": "write guarded:yes or guarded:no.",
    "cost": "write dollars, e.g. cost>0.01.",
    "ms": "write milliseconds, e.g. ms>2000.",
}

_KNOWN = f"filters are {', '.join(_TERMS)}. To search for the words themselves, put them in quotes."
