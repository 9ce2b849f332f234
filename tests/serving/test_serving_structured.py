"""Schemas that the gateway checks itself: nothing is fetched, nothing runs on and on, nothing goes by the guard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving_asking import made, target_of
from serving_door import HI, door
from serving_plane import CHEAP, FREE, Plane, Scripted
from serving_providers import Plain
from serving_rails import MAIL, MASKS

from mainstay.models.types import ResponseFormat, Target
from mainstay.serving import ask
from mainstay.serving.errors import BadField
from mainstay.serving.schema_check import problem_with


@pytest.mark.parametrize("reference", ["http://169.254.169.254/latest", "file:///etc/passwd", "#/nowhere"])
async def test_a_schema_cannot_make_the_gateway_fetch_anything(
    plane: Plane, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: fetched.append(args))
    model = Plain()
    model.says("{}")
    plane.adds("acme/plain", target_of(model, "plain", price=FREE))

    with pytest.raises(BadField):
        await ask(made(model="acme/plain", response_format=ResponseFormat({"$ref": reference})), plane.deps)

    assert fetched == []


def test_no_schema_keeps_the_process_busy() -> None:
    doubling: dict[str, Any] = {"d0": {"type": "object"}}
    for level in range(1, 40):
        both = {"$ref": f"#/$defs/d{level - 1}"}
        doubling[f"d{level}"] = {"allOf": [both, both]}
    slow = "^(a+)+$"
    text = '"' + "a" * 40 + '!"'

    with pytest.raises(BadField, match="too long"):
        problem_with("{}", {"$defs": doubling, "$ref": "#/$defs/d39"})
    with pytest.raises(BadField, match="patternProperties"):
        problem_with("{}", {"additionalProperties": False, "patternProperties": {slow: {}}})
    with pytest.raises(BadField, match="followed"):
        problem_with("{}", {"$ref": "#"})
    with pytest.raises(BadField, match="pattern"):
        problem_with(text, {"pattern": "(?=a)a"})
    old_draft = {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": slow}
    assert "does not match" in str(problem_with(text, {"allOf": [old_draft]}))
    assert problem_with('"aaa"', {"pattern": slow}) is None
    assert problem_with('{"$schema": 1}', {"properties": {"$schema": {"type": "string"}}}) is not None


async def test_a_structured_answer_that_does_not_fit_is_not_quoted_unguarded(
    serve: Any, plane: Plane
) -> None:
    plane.guards_models_with(MASKS)
    provider = Scripted("plain")
    provider.supports = frozenset({"temperature"})
    provider.says(json.dumps({"to": MAIL}))
    plane.adds("acme/plain", Target("acme/plain", provider, "plain", CHEAP, 4096, 1000))
    schema = {"type": "object", "properties": {"to": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    async with door(serve, plane) as post:
        status, body = await post(
            "/chat/completions", {"model": "acme/plain", "messages": [HI], "response_format": form}
        )
    assert (status, MAIL in body) == (502, False)
    assert MAIL not in str(plane.sink.traces[-1])
