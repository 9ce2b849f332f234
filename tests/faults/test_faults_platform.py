"""Faults of what the gateway itself stands on: its database, its disk, Redis, its configuration in mid-request."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from faults_table import SSE_HEAD, STOPS, USAGE, chunk, counts, fine, says
from faults_world import World

from mainstay.core.ids import new_trace_id
from mainstay.govern import SYSTEM
from support.raw_server import Peer, RawServer
from support.redis_server import RedisServer, redis_server_of_one_test

own_redis = redis_server_of_one_test

PROMPT: Any = [{"role": "user", "content": "Say hello."}]


def sdk(world: World, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{world.origin}/v1", api_key=token, max_retries=0)


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """One that a test may break."""
    started = World(tmp_path).start()
    yield started
    started.stop()


class Halting:
    """A model server that streams two words and says the rest when told."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        peer.send(SSE_HEAD + chunk(says("Hel")) + chunk(says("lo ")))
        await self.go_on.wait()
        peer.send(b"".join(map(chunk, (says("world"), STOPS, counts(USAGE)))) + b"0\r\n\r\n")


async def test_without_its_database_the_gateway_serves_on_from_its_last_snapshot(
    own_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key, token = own_world.key()
    async with RawServer(fine()) as server, sdk(own_world, token) as client:
        route = await own_world.configure(server.origin)
        with caplog.at_level(logging.CRITICAL):
            own_world.services.database.close()
            own_world.services.database.engine.dispose()
            (own_world.folder / "data" / "mainstay.db").rename(own_world.folder / "gone.db")
            reply = await client.chat.completions.create(model=route, messages=PROMPT)
            (own_world.folder / "gone.db").rename(own_world.folder / "data" / "mainstay.db")

    assert reply.choices[0].message.content == "Hello world"
    assert (await own_world.settled(key)).spent_nusd == 2300


async def test_a_full_disk_for_traces_stops_no_answer_and_loses_no_trace(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = own_world.key()
    trace_id = new_trace_id()

    def full(_: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with RawServer(fine()) as server, sdk(own_world, token) as client:
        route = await own_world.configure(server.origin)
        with monkeypatch.context() as patch:
            patch.setattr(own_world.services.spool, "_write", full)
            reply = await client.chat.completions.create(
                model=route,
                messages=PROMPT,
                extra_headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
            )
        assert reply.choices[0].message.content == "Hello world"

    trace = await own_world.trace(trace_id)
    assert len(trace.attempts) == 1


async def test_without_redis_nothing_is_spent_on_a_hard_budget(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    world = World(tmp_path, redis_url=own_redis.url).start()
    try:
        key, token = world.key()
        async with RawServer(fine()) as server, sdk(world, token) as client:
            route = await world.configure(server.origin)
            await client.chat.completions.create(model=route, messages=PROMPT)
            own_redis.kill()
            with pytest.raises(openai.APIStatusError) as raised:
                await client.chat.completions.create(model=route, messages=PROMPT)
            asked_without = len(server.requests)
            own_redis.start()
            reply = await _until_answered(client, route)

        assert raised.value.status_code == 503
        assert isinstance(raised.value.body, dict)
        assert raised.value.body["code"] == "budget_store_unavailable"
        assert raised.value.response.headers["retry-after"] == "1"
        assert asked_without == 1
        assert reply == "Hello world"
        assert (await world.settled(key)).spent_nusd == 2 * 2300
    finally:
        world.stop()


async def _until_answered(client: openai.AsyncOpenAI, route: str) -> str | None:
    while True:
        try:
            reply = await client.chat.completions.create(model=route, messages=PROMPT)
        except openai.InternalServerError:
            await asyncio.sleep(0.1)
        else:
            return reply.choices[0].message.content


async def test_a_key_revoked_in_mid_stream_finishes_it_and_is_refused_next(world: World) -> None:
    key, token = world.key()
    halting = Halting()
    async with RawServer(halting) as server, sdk(world, token) as client:
        route = await world.configure(server.origin, provider={"idle_timeout_s": 20})
        stream = await client.chat.completions.create(model=route, messages=PROMPT, stream=True)
        first = await anext(aiter(stream))
        world.services.keys.revoke(SYSTEM, key.id)
        world.services.refresher.refresh()
        halting.go_on.set()
        text = (first.choices[0].delta.content or "") + "".join(
            [piece.choices[0].delta.content or "" async for piece in stream if piece.choices]
        )
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.chat.completions.create(model=route, messages=PROMPT)

    assert text == "Hello world"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert (await world.last_trace(key)).attempts_cost_nusd == 2300


async def test_a_configuration_swapped_in_mid_stream_leaves_the_stream_with_its_old_target(
    world: World,
) -> None:
    key, token = world.key()
    halting = Halting()
    async with RawServer(halting) as old, RawServer(fine()) as new, sdk(world, token) as client:
        route = await world.configure(old.origin, provider={"idle_timeout_s": 20})
        stream = await client.chat.completions.create(model=route, messages=PROMPT, stream=True)
        await anext(aiter(stream))
        moved = await world.configure(new.origin)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model=route, messages=PROMPT)
        reply = await client.chat.completions.create(model=moved, messages=PROMPT)
        halting.go_on.set()
        rest = [piece.choices[0].delta.content or "" async for piece in stream if piece.choices]

    assert "".join(rest) == "lo world"
    assert reply.choices[0].message.content == "Hello world"
    assert (await world.settled(key)).spent_nusd == 2 * 2300
