"""Checks answers against schemas that callers send: nothing is fetched, and no schema keeps the process busy.

A schema may name addresses, hold patterns on which Python's `re` backtracks for hours, or refer to its own parts so that
checking doubles with every line. So references lead nowhere but into the schema itself, patterns run on RE2 (linear
in the text), and a check ends after `STEPS_MAX` keywords.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jsonschema
import orjson
import re2
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from mainstay.serving.errors import BadField

STEPS_MAX: Final = 100_000
_DRAFT: Final = jsonschema.Draft202012Validator
_NOWHERE: Final[Registry[Any]] = Registry()

_Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def problem_with(text: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a JSON text in the eyes of a schema, in one line; None when it fits.

    Raises BadField for a schema that cannot be followed within these bounds.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"it is not JSON ({error})"
    try:
        first = next(iter(_validator(schema).iter_errors(value)), None)
    except (Unresolvable, RecursionError) as error:
        raise _unusable(f"cannot be followed: {str(error)[:200]}") from error
    if first is None:
        return None
    where = "".join(f"[{part!r}]" for part in first.absolute_path)
    return f"{where or 'the value'}: {first.message}"[:300]


def _validator(schema: Mapping[str, Any]) -> Any:
    steps = itertools.count(1)

    def bounded(check: _Check) -> _Check:
        def run(validator: Any, value: Any, instance: Any, whole: Any) -> Iterator[Any] | None:
            if next(steps) > STEPS_MAX:
                raise _unusable("takes too long to check.")
            if "patternProperties" in whole:  # also read by keywords beside it
                raise _unusable("patternProperties cannot be checked here.")
            return check(validator, value, instance, whole)

        return run

    checks: dict[str, _Check] = {**_DRAFT.VALIDATORS, "pattern": _pattern}
    kind = extend(_DRAFT, {name: bounded(check) for name, check in checks.items()})  # type: ignore[no-untyped-call]
    return kind(_of_this_draft(schema), registry=_NOWHERE)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, str):
        return
    try:
        found = re2.search(pattern, instance)
    except re2.error as error:
        raise _unusable(f"the pattern {pattern[:100]!r} cannot be checked here.") from error
    if not found:
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _of_this_draft(schema: Any) -> Any:
    """Without `$schema`, by which a part could choose another draft and with it another checker."""
    if isinstance(schema, list):
        return [_of_this_draft(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: _of_this_draft(item)
        for name, item in schema.items()
        if not (name == "$schema" and isinstance(item, str))
    }


def _unusable(problem: str) -> BadField:
    return BadField("response_format.json_schema.schema", problem)
