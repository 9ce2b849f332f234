"""Asking a RawServer by the pooled client."""

from __future__ import annotations

from mainstay.models.http import HttpResponse, PooledHttpClient
from support.raw_server import RawServer

MB = 1 << 20


async def post(
    client: PooledHttpClient, server: RawServer, body: bytes = b"{}", **options: float
) -> HttpResponse:
    return await client.request(
        "POST", server.url, headers={"Content-Type": "text/plain"}, body=body, **options
    )


async def ask(client: PooledHttpClient, server: RawServer, body: bytes = b"{}", **options: float) -> bytes:
    return await (await post(client, server, body, **options)).read(64 * MB)


async def chunks(response: HttpResponse) -> list[bytes]:
    got = []
    while chunk := await response.next_chunk(5):
        got.append(chunk)
    return got
