"""The pool of connections: shared, bounded, used again, and replaced when one died."""

from __future__ import annotations

import asyncio
import threading

import pytest
import uvloop
from http_asking import ask, post

from mainstay.models.http import HttpBroken, HttpUnreachable, OriginCounts, PooledHttpClient
from support.raw_server import Peer, RawServer, answer, repeats, sends


async def test_ten_thousand_requests_use_one_connection(client):
    async with RawServer(repeats(answer(b"ok"))) as server:
        for _ in range(10_000):
            assert await ask(client, server) == b"ok"

        assert server.connections == 1
        assert client.origins() == {server.origin: OriginCounts(open=1, idle=1, waiting=0)}


@pytest.mark.parametrize("connections_max", [1, 20])
async def test_three_hundred_at_once_share_a_bounded_pool(connections_max):
    client = PooledHttpClient(connections_max=connections_max)

    async with RawServer(repeats(answer(b"ok"))) as server:
        asks = [ask(client, server, str(number).encode(), connect_timeout_s=30.0) for number in range(300)]
        await asyncio.gather(*asks)

        assert server.connections == connections_max
        served = [int(seen.body) for seen in server.requests]
        assert sorted(served) == list(range(300))
        assert connections_max > 1 or served == list(range(300))  # one after the other, as they asked
        assert client.origins()[server.origin] == OriginCounts(connections_max, connections_max, 0)
        await client.close()


async def test_the_connection_used_last_is_used_next(client):
    async with RawServer(repeats(answer(b"ok"))) as server:
        await asyncio.gather(*[ask(client, server) for _ in range(3)])
        first_two = await asyncio.gather(*[ask(client, server, b"a"), ask(client, server, b"b")])
        assert first_two == [b"ok", b"ok"]
        used = [await ask(client, server, b"c") for _ in range(5)]

        assert used == [b"ok"] * 5
        assert server.connections == 3
        assert len({seen.port for seen in server.requests[-5:]}) == 1


async def test_a_caller_who_gets_no_connection_in_time_is_told_so():
    client = PooledHttpClient(connections_max=1)

    async with RawServer(Peer.gone) as server:
        first = asyncio.create_task(post(client, server))
        while server.connections == 0:
            await asyncio.sleep(0)

        with pytest.raises(HttpUnreachable, match="none of 1 connections fell free"):
            await post(client, server, connect_timeout_s=0.05)

        first.cancel()
        await client.close()


async def test_the_room_of_a_cut_connection_goes_to_who_waits():
    client = PooledHttpClient(connections_max=1)

    async with RawServer(Peer.gone, repeats(answer(b"ok"))) as server:
        first = asyncio.create_task(post(client, server))
        while server.connections == 0:
            await asyncio.sleep(0)
        second = asyncio.create_task(ask(client, server))
        gives_up = asyncio.create_task(ask(client, server))
        third = asyncio.create_task(ask(client, server))
        while client.origins()[server.origin].waiting < 3:
            await asyncio.sleep(0)

        gives_up.cancel()
        first.cancel()

        assert await asyncio.gather(second, third) == [b"ok", b"ok"]
        assert server.connections == 2
        assert client.origins()[server.origin] == OriginCounts(open=1, idle=1, waiting=0)
        await client.close()


async def test_an_idle_connection_is_closed_after_its_time():
    client = PooledHttpClient(idle_s=0.05)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(b"ok"))
        await peer.gone()

    async with RawServer(script) as server:
        assert await ask(client, server, head_timeout_s=30) == b"ok"

        await asyncio.wait_for(server.hung_up.wait(), 5)
        assert client.origins()[server.origin].open == 0
        await client.close()


async def test_a_connection_the_server_closed_is_not_used_again(client):
    async with RawServer(sends(answer(b"one")), sends(answer(b"two"))) as server:
        assert await ask(client, server) == b"one"
        while client.origins()[server.origin].open:
            await asyncio.sleep(0)

        assert await ask(client, server) == b"two"


async def test_a_server_that_says_close_is_taken_at_its_word(client):
    async with RawServer(repeats(answer(b"ok", "200 OK", "Connection: close"))) as server:
        assert [await ask(client, server) for _ in range(2)] == [b"ok", b"ok"]
        assert server.connections == 2


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\n", b"junk", answer(b"another")])
async def test_a_connection_with_more_than_the_answer_is_not_used_again(client, junk):
    async with RawServer(repeats(answer(b"ok") + junk), repeats(answer(b"ok"))) as server:
        assert [await ask(client, server) for _ in range(2)] == [b"ok", b"ok"]
        assert server.connections == 2


async def test_bytes_on_an_idle_connection_close_it(client):
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(b"ok"))
        await more.wait()
        peer.send(answer(b"unasked"))
        await peer.gone()

    async with RawServer(script, repeats(answer(b"new"))) as server:
        assert await ask(client, server) == b"ok"
        more.set()
        await asyncio.wait_for(server.hung_up.wait(), 5)

        assert await ask(client, server) == b"new"


async def test_a_reused_connection_that_dies_before_the_answer_is_replaced_once(client):
    async def dies(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(b"one"))
        await peer.request()

    async def resets(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(b"two"))
        await peer.request()
        peer.reset()

    async with RawServer(dies, resets, repeats(answer(b"three"))) as server:
        assert [await ask(client, server) for _ in range(3)] == [b"one", b"two", b"three"]
        assert (server.connections, len(server.requests)) == (3, 5)


async def test_the_replacement_is_a_new_connection_even_when_others_are_idle(client):
    async def dies(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(b"one"))
        await peer.request()

    async with RawServer(dies, dies, dies, repeats(answer(b"new"))) as server:
        await asyncio.gather(*[ask(client, server) for _ in range(3)])

        assert await ask(client, server) == b"new"
        assert server.connections == 4


async def test_a_new_connection_that_dies_before_the_answer_is_not_replaced(client):
    async with RawServer(sends(b"")) as server:
        with pytest.raises(HttpBroken) as caught:
            await post(client, server)

        assert not caught.value.begun
        assert len(server.requests) == 1


async def test_a_reused_connection_that_dies_within_the_answer_is_not_replaced(client):
    async with RawServer(sends(answer(b"one"), b"HTTP/1.1 2")) as server:
        assert await ask(client, server) == b"one"
        with pytest.raises(HttpBroken) as caught:
            await post(client, server)

        assert caught.value.begun
        assert len(server.requests) == 2


def test_each_event_loop_has_its_own_connections():
    client = PooledHttpClient()

    async def once() -> int:
        async with RawServer(repeats(answer(b"ok"))) as server:
            assert [await ask(client, server) for _ in range(2)] == [b"ok", b"ok"]
            await client.close()
            return server.connections

    runs = [asyncio.run, asyncio.run, uvloop.run, uvloop.run]
    assert [run(once()) for run in runs] == [1, 1, 1, 1]


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run])
def test_two_loops_in_two_threads_share_one_client(runs):
    client = PooledHttpClient()
    failures: list[BaseException] = []

    async def many() -> None:
        async with RawServer(repeats(answer(b"ok"))) as server:
            for _ in range(200):
                assert await ask(client, server) == b"ok"
            assert client.origins()[server.origin] == OriginCounts(open=1, idle=1, waiting=0)

    def run() -> None:
        try:
            runs(many())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_closing_the_client_fails_what_is_under_way_and_a_later_request_works(client):
    async def quiet(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with RawServer(quiet, repeats(answer(b"ok"))) as server:
        task = asyncio.create_task(post(client, server))
        while not server.requests:
            await asyncio.sleep(0)

        await client.close()

        with pytest.raises(HttpBroken, match="client was closed"):
            await task
        assert await ask(client, server) == b"ok"
