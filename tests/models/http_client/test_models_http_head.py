"""The heads of requests and of answers: what is sent, what is refused, what is a broken answer."""

from __future__ import annotations

import pytest
from http_asking import post

from mainstay.models.http import HttpBroken
from support.raw_server import RawServer, answer, repeats, sends

# -- of requests -------------------------------------------------------------------------------------------------


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


# -- of answers --------------------------------------------------------------------------------------------------


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
