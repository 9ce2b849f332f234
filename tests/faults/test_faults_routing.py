"""Keys, storms, longer contexts, deadlines: faults that more than one attempt or target has a part in."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx2 as httpx
import openai
import orjson
import pytest
from faults_table import FINE_STREAM, SSE_HEAD, TWO_WORDS, fine, never_answers, plays, refuses, silence, whole
from faults_world import KEYS, World

from support.raw_server import Peer, RawServer, answer

PROMPT: Any = [{"role": "user", "content": "Say hello."}]


def sdk(world: World, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{world.origin}/v1", api_key=token, max_retries=0)


async def takes_only_key_b(peer: Peer) -> None:
    while True:
        seen = await peer.request()
        good = seen.header("Authorization") == f"Bearer {KEYS['FAULTS_KEY_B']}"
        peer.send(answer(whole()) if good else answer(b"{}", "401 Unauthorized"))


async def test_a_refused_key_gives_way_to_the_next_and_stays_out(world: World) -> None:
    key, token = world.key()
    async with RawServer(takes_only_key_b) as server, sdk(world, token) as client:
        route = await world.configure(
            server.origin, provider={"api_key_envs": list(KEYS)}, route={"attempts": 4}
        )
        replies = [
            await client.chat.completions.with_raw_response.create(model=route, messages=PROMPT)
            for _ in range(6)
        ]

    refused = [r for r in server.requests if r.header("Authorization") == f"Bearer {KEYS['FAULTS_KEY_A']}"]
    assert len(refused) <= 1  # which key comes first is drawn; once refused it is not asked again
    assert {reply.headers["x-mainstay-target"] for reply in replies} == {f"{route}-0 (key 2)"}
    views = {view.credential: view.availability for view in await world.targets(route)}
    assert views["key 2"] == "closed"
    assert not refused or views["key 1"] == "key_out"
    assert (await world.settled(key)).spent_nusd == 6 * 2300


async def test_when_every_key_is_refused_the_caller_is_not_told_401(world: World) -> None:
    key, token = world.key()
    async with RawServer(refuses("401 Unauthorized")) as server, sdk(world, token) as client:
        route = await world.configure(server.origin, provider={"api_key_envs": list(KEYS)})
        for asked in (2, 2):  # the second time no key is left to try
            with pytest.raises(openai.APIStatusError) as raised:
                await client.chat.completions.create(model=route, messages=PROMPT)
            assert len(server.requests) == asked
            assert raised.value.status_code in (502, 503)
            assert raised.value.response.headers["x-should-retry"] == "false"
            assert isinstance(raised.value.body, dict)
            assert raised.value.body["code"] == "upstream_credentials_exhausted"
    assert (await world.settled(key)).spent_nusd == 0


async def test_a_storm_of_429_is_not_answered_with_a_storm(world: World) -> None:
    key, token = world.key()
    async with (
        RawServer(refuses("429 Too Many Requests", "Retry-After: 60")) as server,
        sdk(world, token) as client,
    ):
        route = await world.configure(server.origin)
        replies = await asyncio.gather(
            *(client.chat.completions.create(model=route, messages=PROMPT) for _ in range(20)),
            return_exceptions=True,
        )
        first_wave = len(server.requests)
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model=route, messages=PROMPT)

    assert all(
        isinstance(reply, openai.APIStatusError) and reply.status_code in (429, 503) for reply in replies
    )
    assert first_wave <= 20
    assert len(server.requests) == first_wave  # while Retry-After runs nobody is asked
    assert 55 <= int(raised.value.response.headers["retry-after"]) <= 60
    assert (await world.settled(key)).spent_nusd == 0


async def test_a_storm_of_429_without_a_wait_opens_the_breaker(world: World) -> None:
    _, token = world.key()
    async with RawServer(refuses("429 Too Many Requests")) as server, sdk(world, token) as client:
        route = await world.configure(server.origin)
        for _ in range(20):
            with pytest.raises(openai.APIStatusError):
                await client.chat.completions.create(model=route, messages=PROMPT)

    (view,) = await world.targets(route)
    assert view.availability in ("open", "half_open")
    assert len(server.requests) < 20


async def test_a_prompt_too_long_goes_to_the_route_for_longer_contexts(world: World) -> None:
    _, token = world.key()
    refusing = refuses("400 Bad Request", code="context_length_exceeded")
    async with RawServer(refusing) as short, RawServer(fine()) as long, sdk(world, token) as client:
        longer = await world.configure(long.origin, model={"model": "long", "context_tokens": 200_000})
        route = await world.configure(
            short.origin, model={"context_tokens": 8_000}, route={"context_fallback": longer}, also=True
        )
        reply = await client.chat.completions.with_raw_response.create(
            model=route, messages=PROMPT, max_tokens=20
        )

    assert (len(short.requests), len(long.requests)) == (1, 1)
    assert reply.headers["x-mainstay-target"] == f"{longer}-0"
    assert reply.headers["x-mainstay-fallback-reason"] == "context_length_exceeded"
    assert reply.headers["x-mainstay-attempts"] == "2"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_callers_deadline_ends_a_silent_call(world: World, streamed: bool) -> None:
    key, token = world.key()
    async with RawServer(never_answers) as server, sdk(world, token) as client:
        route = await world.configure(server.origin)
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(
                model=route,
                messages=PROMPT,
                stream=streamed,
                extra_headers={"x-mainstay-deadline-ms": "200"},
            )
        await asyncio.wait_for(server.hung_up.wait(), 5)

    assert raised.value.status_code == 504
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["code"] == "deadline_exceeded"
    budget, (view,) = await world.settled(key), await world.targets(route)
    assert budget.spent_nusd == (await world.last_trace(key)).attempts_cost_nusd > 0
    assert (view.failures_in_a_row, view.in_flight) == (0, 0)  # a caller's haste is no fault of the target


async def test_the_callers_deadline_in_mid_stream_is_told_in_the_stream(world: World) -> None:
    key, token = world.key()
    trickle = plays(b"", SSE_HEAD + TWO_WORDS, then=silence)
    async with RawServer(trickle) as server, sdk(world, token) as client:
        route = await world.configure(server.origin, provider={"idle_timeout_s": 20})
        stream = await client.chat.completions.create(
            model=route, messages=PROMPT, stream=True, extra_headers={"x-mainstay-deadline-ms": "300"}
        )
        with pytest.raises(openai.APIError) as raised:
            async for _ in stream:
                pass
        await asyncio.wait_for(server.hung_up.wait(), 5)

    assert isinstance(raised.value.body, dict)
    assert raised.value.body["code"] == "deadline_exceeded"
    assert (await world.settled(key)).spent_nusd > 2 * 400


async def test_a_silent_stream_is_kept_alive_and_then_fails_in_the_stream(hasty_world: World) -> None:
    _, token = hasty_world.key()
    async with RawServer(never_answers) as server, httpx.AsyncClient() as client:
        route = await hasty_world.configure(server.origin)
        headers = {"Authorization": f"Bearer {token}", "x-mainstay-deadline-ms": "500"}
        body = {"model": route, "messages": PROMPT, "stream": True}
        text = b""
        async with client.stream(
            "POST", f"{hasty_world.origin}/v1/chat/completions", json=body, headers=headers
        ) as response:
            with contextlib.suppress(httpx.RemoteProtocolError):
                async for piece in response.aiter_raw():
                    text += piece

    assert text.startswith(b": ping\n\n")
    assert response.headers["x-request-id"]
    assert orjson.loads(text.split(b"data: ")[-1])["error"]["code"] == "deadline_exceeded"


async def test_what_the_sdk_has_already_retried_is_not_retried_again(world: World) -> None:
    _, token = world.key()
    async with RawServer(refuses("500 Internal Server Error")) as server, sdk(world, token) as client:
        route = await world.configure(server.origin)
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(
                model=route, messages=PROMPT, extra_headers={"x-stainless-retry-count": "2"}
            )
    assert len(server.requests) == 1


async def test_a_stream_that_is_fine_brings_usage_when_asked_and_costs_as_a_whole_answer_does(
    world: World,
) -> None:
    spent = []
    for streamed in (False, True):
        key, token = world.key()
        async with RawServer(plays(answer(whole()), FINE_STREAM)) as server, sdk(world, token) as client:
            route = await world.configure(server.origin)
            reply: Any = await client.chat.completions.create(model=route, messages=PROMPT, stream=streamed)
            if streamed:
                assert [piece async for piece in reply if piece.usage is not None] == []
                assert orjson.loads(server.requests[0].body)["stream_options"] == {"include_usage": True}
        spent.append((await world.settled(key)).spent_nusd)
    assert spent == [2300, 2300]
