"""Answers that do not come in time, and callers that leave: both hang up."""

from __future__ import annotations

import asyncio

import pytest
from http_asking import MB, post

from mainstay.models.http import HttpBroken, HttpTimeout
from support.raw_server import Peer, RawServer, chunked

# -- too late ----------------------------------------------------------------------------------------------------


async def test_no_answer_in_time_is_a_timeout_and_hangs_up(client):
    async with RawServer(Peer.gone) as server:
        with pytest.raises(HttpTimeout, match=r"did not begin within 0.05 s"):
            await post(client, server, head_timeout_s=0.05)
        await asyncio.wait_for(server.hung_up.wait(), 5)


async def stalls(peer: Peer) -> None:
    await peer.request()
    peer.send(chunked(b"begun", end=b""))
    await peer.gone()


async def test_silence_in_the_body_is_a_timeout_and_hangs_up(client):
    async with RawServer(stalls) as server:
        response = await post(client, server, head_timeout_s=5)
        assert await response.next_chunk(0.05) == b"begun"

        for _ in range(2):
            with pytest.raises(HttpTimeout, match=r"fell silent for 0.05 s"):
                await response.next_chunk(0.05)
        await asyncio.wait_for(server.hung_up.wait(), 5)


async def test_reading_all_has_one_deadline(client):
    async def drips(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        gone = asyncio.create_task(peer.gone())
        while not gone.done():
            peer.send(b"1\r\nx\r\n")
            await asyncio.wait([gone], timeout=0.005)

    async with RawServer(drips) as server:
        response = await post(client, server)
        with pytest.raises(HttpTimeout):
            await response.read(MB, 0.1)
        await asyncio.wait_for(server.hung_up.wait(), 5)


# -- leaving -----------------------------------------------------------------------------------------------------


async def test_cancelling_before_the_head_hangs_up(client):
    async with RawServer(Peer.gone) as server:
        task = asyncio.create_task(post(client, server))
        while server.connections == 0:
            await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.hung_up.wait(), 1)
        assert client.origins()[server.origin].open == 0


async def test_cancelling_within_the_body_hangs_up(client):
    async with RawServer(stalls) as server:
        response = await post(client, server)
        assert await response.next_chunk() == b"begun"
        task = asyncio.create_task(response.next_chunk(60))
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.hung_up.wait(), 1)
        assert client.origins()[server.origin].open == 0


async def test_closing_within_the_body_hangs_up(client):
    async with RawServer(stalls) as server:
        response = await post(client, server)
        response.close()
        response.close()

        await asyncio.wait_for(server.hung_up.wait(), 1)
        with pytest.raises(HttpBroken, match="closed before its end"):
            await response.next_chunk()
