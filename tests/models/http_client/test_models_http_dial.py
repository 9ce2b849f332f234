"""Reaching a server: refused, unknown, over TLS, at each of its addresses."""

from __future__ import annotations

import asyncio
import socket

import pytest
from http_asking import MB, ask

from mainstay.models.http import HttpUnreachable, OriginCounts, PooledHttpClient
from support.raw_server import Peer, RawServer, answer, repeats, self_signed

# -- unreachable -------------------------------------------------------------------------------------------------


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


# -- TLS ---------------------------------------------------------------------------------------------------------


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


# -- addresses ---------------------------------------------------------------------------------------------------


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
