"""The pooled HTTP client: what it sends, what it makes of answers, and how each failure is named."""

from __future__ import annotations

import asyncio
import socket
import threading
import tracemalloc

import pytest
import uvloop

from mainstay.models.http import HttpBroken, HttpTimeout, HttpUnreachable, OriginCounts, PooledHttpClient
from support.raw_server import Peer, RawServer, answer, chunked, repeats, self_signed, sends

# The hook that replaces this fixture cannot be used by one module alone.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Overriding the .event_loop_policy.:pytest.PytestDeprecationWarning"
)

MB = 1 << 20


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request):
    return asyncio.DefaultEventLoopPolicy() if request.param == "asyncio" else uvloop.EventLoopPolicy()


@pytest.fixture
async def client():
    client = PooledHttpClient()
    yield client
    await client.close()


async def post(client, server, body=b"{}", **options):
    return await client.request(
        "POST", server.url, headers={"Content-Type": "text/plain"}, body=body, **options
    )


async def ask(client, server, body=b"{}", **options):
    return await (await post(client, server, body, **options)).read(64 * MB)


async def chunks(response):
    got = []
    while chunk := await response.next_chunk(5):
        got.append(chunk)
    return got


# -- requests ----------------------------------------------------------------------------------------------------


async def test_a_request_carries_its_headers_and_ours(client):
    async with RawServer(repeats(answer(b"ok"))) as server:
        url = f"{server.origin}/v1/x?a=1&b=%20#fragment"
        response = await client.request("POST", url, headers={"Authorization": "Bearer s"}, body=b"hello")
        assert await response.read(100) == b"ok"

        (seen,) = server.requests
        assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x?a=1&b=%20", b"hello")
        assert seen.header("Host") == f"127.0.0.1:{server.port}"
        assert seen.header("Authorization") == "Bearer s"
        assert seen.header("Accept-Encoding") == "identity"
        assert seen.header("Content-Length") == "5"
        assert (seen.header("User-Agent") or "").startswith("mainstay/")


async def test_a_get_has_no_content_length_and_an_empty_post_has(client):
    async with RawServer(repeats(answer())) as server:
        for method in ("GET", "POST"):
            await (await client.request(method, server.url, headers={})).read(10)

        assert [seen.header("Content-Length") for seen in server.requests] == [None, "0"]


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("POST", "http://h/", {"X": "a\r\nY: b"}),
        ("POST", "http://h/", {"X": "a\nb"}),
        ("POST", "http://h/", {"X": "a\x00"}),
        ("POST", "http://h/", {"X": "\u20ac"}),
        ("POST", "http://h/", {"X: 1\r\nY": "b"}),
        ("POST", "http://h/", {"": "b"}),
        ("POST", "http://h/", {"Content-Length": "9"}),
        ("POST", "http://h/", {"transfer-encoding": "chunked"}),
        ("POST", "http://h/a b", {}),
        ("POST", "http://h/a\r\nX: y", {}),
        ("POST", "http://h\n/", {}),
        ("POST", "http://user:secret@h/", {}),
        ("POST", "ftp://h/", {}),
        ("POST", "http:///path", {}),
        ("POST", "http://h:99999/", {}),
        ("PO ST", "http://h/", {}),
    ],
)
async def test_what_would_break_or_forge_a_head_is_refused(client, method, url, headers):
    with pytest.raises(ValueError):
        await client.request(method, url, headers=headers)


# -- bodies ------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head_and_keeps_the_connection(client, method, data):
    async with RawServer(repeats(data)) as server:
        for _ in range(3):
            response = await client.request(method, server.url, headers={})
            assert await response.read(10) == b""

        assert server.connections == 1


async def test_header_names_are_in_lower_case_and_the_last_of_a_repeated_one_counts(client):
    async with RawServer(
        repeats(answer(b"", "429 Slow Down", "X-A: 1", "RETRY-After:  7 ", "x-a: 2"))
    ) as server:
        response = await post(client, server)

        assert response.status == 429
        assert dict(response.headers) == {"content-length": "0", "x-a": "2", "retry-after": "7"}
        assert response.headers.get("nothing") is None


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


# -- the pool ----------------------------------------------------------------------------------------------------


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

    assert [asyncio.run(once()), asyncio.run(once()), uvloop.run(once())] == [1, 1, 1]


def test_two_loops_in_two_threads_share_one_client():
    client = PooledHttpClient()
    failures: list[BaseException] = []

    async def many() -> None:
        async with RawServer(repeats(answer(b"ok"))) as server:
            for _ in range(200):
                assert await ask(client, server) == b"ok"
            for pools in [client.origins()]:
                assert pools[server.origin] == OriginCounts(open=1, idle=1, waiting=0)

    def run() -> None:
        try:
            asyncio.run(many())
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


# -- failures ----------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_unreachable(client):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(HttpUnreachable, match=r"^refused$"):
            await client.request("GET", f"http://127.0.0.1:{held.getsockname()[1]}/", headers={})
        with pytest.raises(HttpUnreachable, match=r"^refused$"):
            await client.request("GET", f"http://localhost:{held.getsockname()[1]}/", headers={})


async def test_an_unknown_host_is_unreachable(client):
    with pytest.raises(HttpUnreachable, match=r"^no such host$"):
        await client.request("GET", "http://nowhere.invalid/", headers={})


async def test_a_server_that_does_not_shake_hands_is_unreachable_in_time(client):
    async with RawServer(Peer.gone) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(HttpUnreachable, match=r"^timed out after 0.05 s$"):
            await client.request("GET", url, headers={}, connect_timeout_s=0.05)
        await asyncio.wait_for(server.hung_up.wait(), 5)
        assert client.origins() == {f"https://127.0.0.1:{server.port}": OriginCounts(0, 0, 0)}


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


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "a cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a protocol switch": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an unasked switch": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000,
    "many interim heads": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_malformed_head_is_a_broken_answer(client, data):
    async with RawServer(sends(data)) as server:
        with pytest.raises(HttpBroken) as caught:
            await post(client, server)
        assert caught.value.begun
        assert client.origins()[server.origin].open == 0


async def test_a_body_compressed_unasked_is_a_broken_answer(client):
    async with RawServer(repeats(answer(b"x", "200 OK", "Content-Encoding: gzip"))) as server:
        with pytest.raises(HttpBroken, match="compressed"):
            await post(client, server)


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


# -- TLS and addresses -------------------------------------------------------------------------------------------


async def test_tls_checks_the_certificate_and_pools_like_any(tmp_path):
    server_tls, client_tls = self_signed(tmp_path, "localhost", "127.0.0.1")
    trusting, strict = PooledHttpClient(tls=client_tls), PooledHttpClient()

    async with RawServer(repeats(answer(b"x" * 100_000)), tls=server_tls) as server:
        for _ in range(3):
            assert await ask(trusting, server) == b"x" * 100_000
        assert server.connections == 1
        by_name = server.url.replace("127.0.0.1", "localhost")
        assert (await trusting.request("GET", by_name, headers={})).status == 200
        with pytest.raises(HttpUnreachable, match="TLS failed: self-signed certificate"):
            await ask(strict, server)
        await trusting.close()
        await strict.close()


async def test_a_certificate_for_another_name_is_unreachable(tmp_path):
    server_tls, client_tls = self_signed(tmp_path, "example.com")
    client = PooledHttpClient(tls=client_tls)

    async with RawServer(repeats(answer(b"ok")), tls=server_tls) as server:
        with pytest.raises(HttpUnreachable, match="TLS failed: IP address mismatch"):
            await ask(client, server)
        await client.close()


async def test_a_server_without_tls_is_unreachable_over_tls(client):
    async def plain(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(plain) as server:
        with pytest.raises(HttpUnreachable, match="TLS failed: "):
            await client.request("GET", server.url.replace("http:", "https:"), headers={})


async def test_large_bodies_go_both_ways_over_tls(tmp_path):
    server_tls, client_tls = self_signed(tmp_path, "127.0.0.1")
    client = PooledHttpClient(tls=client_tls)
    body = b"0123456789abcdef" * (4 * MB // 16)

    async with RawServer(repeats(answer(body)), tls=server_tls) as server:
        assert await ask(client, server, body) == body
        assert await ask(client, server, body) == body
        assert server.connections == 1
        assert server.requests[1].body == body
        await client.close()


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6_loopback(), reason="no IPv6 loopback here")
async def test_an_ipv6_address_is_reached_and_named_in_brackets(client):
    async with RawServer(repeats(answer(b"ok")), host="::1") as server:
        assert await ask(client, server) == b"ok"
        assert server.requests[0].header("Host") == f"[::1]:{server.port}"
        assert list(client.origins()) == [server.origin]


async def test_a_name_with_several_addresses_is_reached_at_the_one_that_answers(client):
    async with RawServer(repeats(answer(b"ok"))) as server:  # on IPv4 alone; localhost may mean ::1 first
        response = await client.request("GET", f"http://localhost:{server.port}/", headers={})

        assert await response.read(10) == b"ok"
