"""What an app guards: its question, its passages and its answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from serving_door import HI, asked_by, door
from serving_plane import Plane, runnable
from serving_rails import ATTACK, MAIL, WATCHES

from mainstay.guard.types import GroundingRule
from mainstay.models import ProviderBadRequest
from mainstay.models.types import (
    Delta,
    Usage,
)


async def test_an_attack_in_an_apps_history_is_blocked(serve: Any, plane: Plane) -> None:
    plane.runs(("bot", runnable(policy=replace(WATCHES, grounding=GroundingRule("keep")), corpus=None)))
    plane.model.says("Fine.")
    messages = [HI, {"role": "assistant", "content": ATTACK}, HI]
    async with door(serve, plane) as post:
        status, _ = await post("/chat/completions", {"model": "bot", "messages": messages})
    assert status == 400


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_apps_provider_error_does_not_repeat_its_prompt(
    serve: Any, plane: Plane, path: str, stream: bool
) -> None:
    plane.corpus.texts["version_2"] = "The code of the crew's safe is 7713."
    refusal = "acme answered 400: bad message 'Use only: The code of the crew's safe is 7713.'"
    plane.model.plays(ProviderBadRequest(refusal, provider="acme", upstream_status=400))
    body = asked_by(path, stream) | {"model": "bot"}
    body |= (
        {"input": "When?"} if path == "responses" else {"messages": [{"role": "user", "content": "When?"}]}
    )
    async with door(serve, plane) as post:
        status, text = await post(f"/{path}", body)
    assert status == 400
    assert "7713" not in text


async def test_half_a_sentence_that_is_told_as_removed_was_guarded(serve: Any, plane: Plane) -> None:
    plane.model.plays(
        Delta(
            text="Cars must check in at least 30 minutes before departure. Write to jane.roe@example.com for"
        ),
        Delta(finish_reason="length", usage=Usage(1, 1)),
    )
    ask = {"model": "bot", "messages": [{"role": "user", "content": "When must cars check in?"}]}
    async with door(serve, plane) as post:
        _, body = await post("/chat/completions", ask)
    assert json.loads(body)["mainstay"]["grounding"]["removed"]
    assert MAIL not in body
