"""Datasets: JSON lines, one case each, as `Case`s; mistakes are shown with their line and field.

    {"id": "q01", "question": "…", "answer": "…", "accept": [["24 hours", "24 h"]],
     "spans": [{"document": "handbook.pdf", "quote": "…"}], "kind": "single"}

`kind` is `single`, `two_passages` or `unanswerable`; an unanswerable case has neither `accept` nor `spans`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mainstay.core.content import Digest, digest_json
from mainstay.core.errors import ConfigError, did_you_mean
from mainstay.evaluate.types import Case, ExpectedSpan

KINDS = ("single", "two_passages", "unanswerable")
_FIELDS = ("id", "question", "answer", "accept", "spans", "kind")


def load_dataset(path: Path) -> tuple[Case, ...]:
    """Read a .jsonl file. Raises ConfigError naming line, field and remedy; blank lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            case = _read_line(f"{path}, line {number}", line)
            if case.id in lines:
                raise ConfigError(
                    f"{path}, line {number}: id: {case.id!r} is already on line {lines[case.id]}.",
                    fix="Give each case an id of its own.",
                )
            lines[case.id] = number
            cases.append(case)
    if not cases:
        raise ConfigError(f"{path} holds no case.", fix="Write one JSON object a line.")
    return tuple(cases)


def case_body(case: Case) -> dict[str, Any]:
    """A case as JSON, in the form of a dataset's line."""
    return {
        "id": case.id,
        "question": case.question,
        "answer": case.answer,
        "accept": [list(group) for group in case.accept],
        "spans": [{"document": span.document, "quote": span.quote} for span in case.spans],
        "kind": case.kind,
    }


def case_from_body(body: Mapping[str, Any], where: str = "case") -> Case:
    """The inverse of `case_body`; `where` is named in errors."""
    return _Line(where, body).case()


def dataset_digest(cases: Sequence[Case]) -> Digest:
    """The identity of a dataset version: its cases in their order."""
    return digest_json([case_body(case) for case in cases])


def _read_line(where: str, line: str) -> Case:
    try:
        body = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}, column {error.colno}: {error.msg}.", fix="Write one JSON object a line."
        ) from error
    if not isinstance(body, dict):
        raise ConfigError(f"{where}: a case must be a JSON object.", fix='Begin the line with {"id": …')
    return case_from_body(body, where)


class _Line:
    """Reads the fields of one case; every error names the line and the field."""

    def __init__(self, where: str, body: Mapping[str, Any]) -> None:
        self._where = where
        self._body = body

    def case(self) -> Case:
        for field in self._body:
            if field not in _FIELDS:
                raise self._error(field, "no such field.", did_you_mean(field, _FIELDS))
        kind = self._text("kind")
        if kind not in KINDS:
            raise self._error("kind", f"no such kind: {kind!r}.", did_you_mean(kind, KINDS))
        accept, spans = self._accept(), self._spans()
        if kind == "unanswerable" and (accept or spans):
            raise self._error(
                "accept" if accept else "spans",
                "an unanswerable case has no right answer and no source.",
                "Write [] or another kind.",
            )
        if kind != "unanswerable" and not accept:
            raise self._error(
                "accept",
                "is empty, so nothing would be right.",
                'Write what a right answer holds: [["24 hours"]].',
            )
        return Case(self._text("id"), self._text("question"), self._text("answer", ""), accept, spans, kind)

    def _text(self, field: str, default: str | None = None) -> str:
        value = self._body.get(field, default)
        if value is None:
            raise self._error(field, "is missing.", f'Add "{field}": "…".')
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self._error(field, "must be text.", f'Write "{field}": "…".')
        return value

    def _list(self, field: str) -> list[Any]:
        value = self._body.get(field, [])
        if not isinstance(value, list):
            raise self._error(field, "must be a list.", f'Write "{field}": [ … ].')
        return value

    def _accept(self) -> tuple[tuple[str, ...], ...]:
        groups = []
        for number, group in enumerate(self._list("accept")):
            if (
                not isinstance(group, list)
                or not group
                or not all(isinstance(s, str) and s.strip() for s in group)
            ):
                raise self._error(
                    f"accept[{number}]", "must be a list of texts.", 'Write groups: [["24 hours", "24 h"]].'
                )
            groups.append(tuple(group))
        return tuple(groups)

    def _spans(self) -> tuple[ExpectedSpan, ...]:
        spans = []
        for number, span in enumerate(self._list("spans")):
            known = isinstance(span, dict) and set(span) == {"document", "quote"}
            if not known or not all(isinstance(v, str) and v.strip() for v in span.values()):
                raise self._error(
                    f"spans[{number}]",
                    "must hold document and quote, both texts.",
                    'Write {"document": "handbook.pdf", "quote": "…"}.',
                )
            spans.append(ExpectedSpan(span["document"], span["quote"]))
        return tuple(spans)

    def _error(self, field: str, message: str, fix: str) -> ConfigError:
        return ConfigError(f"{self._where}: {field}: {message}", fix=fix)
