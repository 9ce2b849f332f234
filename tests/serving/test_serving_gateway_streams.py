"""Streams over a real socket: silence, failures midway, clients that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from serving_door import ASK, BEARER, read_until_cut, stream_of
from serving_plane import QUESTION, Plane

from mainstay.models import ProviderAuthFailed, ProviderError
from mainstay.models.tokens import token_estimate
from mainstay.models.types import Delta
from mainstay.observe.types import Attr


@pytest.mark.parametrize("ending", ["error", "silence"])
async def test_a_stream_cut_midway_ends_with_an_error_and_no_done(
    serve: Any, plane: Plane, ending: str
) -> None:
    key = plane.key(budget_nusd=10**9)
    cut: list[Any] = [ProviderError("broke", provider="acme")] if ending == "error" else []
    plane.model.plays(Delta(text="Hel"), *cut)
    async with stream_of(serve, plane) as response:
        text = await read_until_cut(response)
    assert response.status == 200
    assert '"error"' in text
    assert "[DONE]" not in text
    assert len(plane.model.calls) == 1
    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert state.spent_nusd == token_estimate(QUESTION) * 100 + token_estimate("Hel") * 400
    assert plane.sink.traces[-1][0].status == "error"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [0, 1])
async def test_a_client_that_leaves_cancels_the_upstream_call_and_is_billed_once(
    serve: Any, plane: Plane, stream: bool, words: int
) -> None:
    key = plane.key(budget_nusd=10**9)
    plane.model.plays(*[Delta(text="Hel")] * words, asyncio.Event())
    url = await serve(plane.gateway())
    body = {"model": "acme/small", "messages": ASK, "stream": stream}
    async with aiohttp.ClientSession(headers=BEARER) as http:
        asking = asyncio.create_task(http.post(f"{url}/chat/completions", json=body))
        await plane.model.started.wait()
        if stream and words:
            response = await asking
            assert b"Hel" in await response.content.readline()
            response.close()
        else:
            asking.cancel()
        async with asyncio.timeout(5):
            await plane.model.cancelled.wait()
            while not plane.sink.traces:
                await asyncio.sleep(0.005)
    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert state.spent_nusd == token_estimate(QUESTION) * 100 + token_estimate("Hel") * 400 * (
        stream and words
    )
    assert plane.sink.traces[-1][0].attributes[Attr.ERROR_TYPE] == "cancelled"


async def test_a_silent_provider_is_bridged_by_comments(serve: Any, plane: Plane) -> None:
    go = asyncio.Event()
    plane.model.plays(go, Delta(text="Hello."), Delta(finish_reason="stop"))
    async with stream_of(serve, plane, headers={"x-api-key": "ms-good"}, ping_after_s=0.01) as response:
        first = await response.content.readline()
        go.set()
        rest = await response.text()
    assert first == b": ping\n"
    assert rest.rstrip().endswith("data: [DONE]")
    assert "Hello." in rest


async def test_a_failure_after_a_comment_is_told_in_the_stream(serve: Any, plane: Plane) -> None:
    go = asyncio.Event()
    plane.model.plays(go, ProviderAuthFailed("refused our key", provider="acme", upstream_status=401))
    async with stream_of(serve, plane, ping_after_s=0.01) as response:
        await response.content.readline()
        go.set()
        rest = await read_until_cut(response)
    assert "upstream_credentials_exhausted" in rest
    assert "[DONE]" not in rest
