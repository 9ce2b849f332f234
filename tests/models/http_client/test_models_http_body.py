"""Bodies: however they are framed, in both directions, no faster than they are read, and cut."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from http_asking import MB, ask, chunks, post

from mainstay.models.http import HttpBroken, OriginCounts
from support.raw_server import Peer, RawServer, answer, chunked, repeats, sends

# -- framing -----------------------------------------------------------------------------------------------------


BODIES = {
    "length": answer(b"hello world"),
    "chunked": chunked(b"hello ", b"world"),
    "chunked with trailers": chunked(b"hello world", end=b"0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"),
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello world",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello world",
    "after 1xx": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + answer(b"hello world"),
}


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
async def test_a_body_is_read_however_it_is_framed(client, data):
    async with RawServer(sends(data)) as server:
        response = await post(client, server)

        assert response.status == 200
        assert await response.read(100) == b"hello world"
        assert await response.next_chunk() == b""
        response.close()
        response.close()


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
async def test_a_body_is_the_same_byte_by_byte(client, data):
    async def drip(peer: Peer) -> None:
        await peer.request()
        for byte in data:
            peer.send(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)

    async with RawServer(drip) as server:
        response = await post(client, server)

        assert b"".join(await chunks(response)) == b"hello world"


async def test_what_came_while_the_reader_was_busy_is_one_chunk(client):
    go, sent = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(chunked(b"first", end=b""))
        await go.wait()
        for _ in range(3):
            peer.send(b"3\r\nabc\r\n")
        peer.send(b"0\r\n\r\n")
        sent.set()
        await peer.gone()

    async with RawServer(script) as server:
        response = await post(client, server)
        assert await response.next_chunk() == b"first"
        go.set()
        await sent.wait()
        while client.origins()[server.origin].idle == 0:  # the end has come, though nobody asked for it
            await asyncio.sleep(0)

        assert await response.next_chunk() == b"abcabcabc"
        assert await response.next_chunk() == b""


async def test_a_body_over_the_limit_is_cut(client):
    async with RawServer(repeats(answer(b"x" * 5000))) as server:
        response = await post(client, server)

        with pytest.raises(HttpBroken, match="exceeds 4999 bytes") as caught:
            await response.read(4999)
        assert caught.value.begun


# -- large ones --------------------------------------------------------------------------------------------------


async def test_thirty_megabytes_come_down_no_faster_than_they_are_read(client):
    sent = 0
    stalled = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (30 * MB))
        while sent < 30 * MB:
            peer.send(b"x" * 65536)
            sent += 65536
            drain = asyncio.ensure_future(peer.writer.drain())
            if not (await asyncio.wait([drain], timeout=0.2))[0]:
                stalled.set()
            await drain
        await peer.gone()

    async with RawServer(script) as server:
        response = await post(client, server)
        await asyncio.wait_for(stalled.wait(), 20)
        assert sent < 20 * MB  # what the sockets and we hold

        sizes = [len(chunk) for chunk in await chunks(response)]

        assert sum(sizes) == 30 * MB
        assert max(sizes) <= 512 << 10
        assert client.origins()[server.origin] == OriginCounts(open=1, idle=1, waiting=0)


async def test_thirty_megabytes_go_up_in_pieces_that_the_server_asked_for(client):
    body = bytes(range(256)) * (30 * MB // 256)

    async with RawServer(repeats(answer(b"ok"))) as server:
        assert await ask(client, server, body) == b"ok"
        assert await ask(client, server, b"small") == b"ok"

        assert server.requests[0].body == body
        assert server.connections == 1


async def test_an_early_refusal_ends_the_upload(client):
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(answer(b"too large", "413 Content Too Large"))
        await peer.gone()

    async with RawServer(script) as server:
        response = await post(client, server, b"x" * (30 * MB))

        assert response.status == 413
        assert await response.read(100) == b"too large"
        await asyncio.wait_for(server.hung_up.wait(), 5)
        assert client.origins()[server.origin].open == 0


async def test_an_upload_waits_for_a_server_that_does_not_read(client):
    read, body = asyncio.Event(), b"x" * (30 * MB)

    async def script(peer: Peer) -> None:
        await peer.head()
        await read.wait()
        left = len(body)
        while left:
            left -= len(await peer.reader.read(1 << 20))
        peer.send(answer(b"ok"))
        await peer.gone()

    async with RawServer(script) as server:
        tracemalloc.start()
        try:
            task = asyncio.create_task(ask(client, server, body))
            assert not (await asyncio.wait([task], timeout=0.2))[0]
            read.set()
            assert await task == b"ok"
            assert tracemalloc.get_traced_memory()[1] < 8 * MB
        finally:
            tracemalloc.stop()


async def test_an_answer_that_comes_while_we_write_does_not_stop_the_writing(client):
    async def echo(peer: Peer) -> None:
        head = await peer.head()
        size = int(head.header("Content-Length") or 0)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size:
            data = await peer.reader.read(65536)
            size -= len(data)
            peer.send(data)
            await peer.writer.drain()
        await peer.gone()

    async with RawServer(echo) as server:
        body = bytes(range(256)) * (8 * MB // 256)

        assert await ask(client, server, body) == body


# -- cut ---------------------------------------------------------------------------------------------------------


CUT = {
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello",
    "a missing last chunk": chunked(b"hello", end=b""),
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nff\r\n",
    "a bad chunk size": chunked(b"hello", end=b"zz\r\n"),
    "endless trailers": chunked(b"hello", end=b"0\r\n" + b"X-A: b\r\n" * 20_000),
}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
async def test_a_cut_body_is_given_as_far_as_it_came_and_then_is_broken(client, data):
    split = data.index(b"hello") + 5

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(data[:split])
        await rest.wait()
        peer.send(data[split:])

    rest = asyncio.Event()
    async with RawServer(script) as server:
        response = await post(client, server)
        assert await response.next_chunk() == b"hello"
        rest.set()
        for _ in range(2):
            with pytest.raises(HttpBroken) as caught:
                await response.next_chunk()
            assert caught.value.begun
        response.close()


async def test_a_reset_in_the_body_is_a_broken_answer(client):
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await reset.wait()
        peer.reset()

    reset = asyncio.Event()
    async with RawServer(script) as server:
        response = await post(client, server)
        assert await response.next_chunk() == b"hello"
        reset.set()
        with pytest.raises(HttpBroken, match="reset in the middle") as caught:
            await response.next_chunk()
        assert caught.value.begun
