"""Clients that leave or do not read: the provider's call ends, what was used is charged, nothing stays held."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from faults_table import SSE_HEAD, TWO_WORDS, chunk, never_answers, plays, says, silence
from faults_world import INPUT_NUSD, OUTPUT_NUSD, World

from support.raw_server import Peer, RawServer

PROMPT: Any = [{"role": "user", "content": "Say hello."}]


async def open_request(
    world: World, token: str, model: str, streamed: bool
) -> tuple[Any, asyncio.StreamWriter]:
    """A request on a bare connection: a client that may do as it likes."""
    host, port = world.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    body = orjson.dumps({"model": model, "messages": PROMPT, "stream": streamed})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def asked(server: RawServer) -> None:
    while not server.requests:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_before_the_first_word_ends_the_call_within_100_ms(
    world: World, streamed: bool
) -> None:
    took_s = []
    for _ in range(3):
        key, token = world.key()
        async with RawServer(never_answers) as server:
            route = await world.configure(server.origin)
            _, writer = await open_request(world, token, route, streamed)
            await asked(server)
            await asyncio.sleep(0.05)
            left_s = time.perf_counter()
            writer.transport.abort()
            await asyncio.wait_for(server.hung_up.wait(), 5)
            took_s.append(time.perf_counter() - left_s)
        await check_cut(world, key, route)
    assert min(took_s) < 0.1  # of three, as the machine may be busy


async def check_cut(world: World, key: Any, route: str, written: int = 0) -> None:
    trace, budget, (view,) = await world.last_trace(key), await world.settled(key), await world.targets(route)
    assert budget.spent_nusd == trace.attempts_cost_nusd
    assert written * OUTPUT_NUSD < budget.spent_nusd <= 40 * INPUT_NUSD + (written + 20) * OUTPUT_NUSD
    assert len(trace.attempts) == 1
    assert (view.in_flight, view.failures_in_a_row) == (0, 0)


async def test_a_client_that_leaves_in_mid_stream_pays_for_what_was_said(world: World) -> None:
    key, token = world.key()
    async with RawServer(plays(b"", SSE_HEAD + TWO_WORDS, then=silence)) as server:
        route = await world.configure(server.origin, provider={"idle_timeout_s": 20})
        reader, writer = await open_request(world, token, route, True)
        await reader.readuntil(b"lo ")
        left_s = time.perf_counter()
        writer.transport.abort()
        await asyncio.wait_for(server.hung_up.wait(), 5)
        took_s = time.perf_counter() - left_s

    await check_cut(world, key, route, written=2)
    assert took_s < 1.0


async def test_a_client_that_does_not_read_is_held_back_then_cut_off_and_charged(hasty_world: World) -> None:
    key, token = hasty_world.key()
    sent = 0
    word = chunk(says("x" * 10_000))

    async def floods(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(SSE_HEAD)
        peer.writer.transport.set_write_buffer_limits(high=1 << 16)
        try:
            while True:
                peer.send(word)
                await peer.writer.drain()
                sent += len(word)
        except ConnectionError:
            peer.server.hung_up.set()

    async with RawServer(floods) as server:
        route = await hasty_world.configure(server.origin)
        _, writer = await open_request(hasty_world, token, route, True)
        await asyncio.wait_for(server.hung_up.wait(), 20)
        writer.transport.abort()

    assert (
        sent < 32 << 20
    )  # kernels hold some megabytes for each socket; the gateway itself no more than one event
    trace, budget = await hasty_world.last_trace(key), await hasty_world.settled(key)
    assert 0 < budget.spent_nusd == trace.attempts_cost_nusd
