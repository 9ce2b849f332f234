"""What every adapter's calls have in common, seen through one of them."""

from __future__ import annotations

import orjson
import pytest

from mainstay.core.secret import Secret
from mainstay.models import ProviderAuthFailed, ProviderError, ProviderTimeout
from mainstay.models.collect import collect
from mainstay.models.providers import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import ChatCall, ChatMessage
from support.raw_server import Peer, RawServer, answer

CALL = ChatCall("m", (ChatMessage("user", "hi"),))


@pytest.mark.parametrize("in_stream", [False, True])
async def test_neither_our_key_nor_the_address_is_repeated(in_stream: bool) -> None:
    async def echoes(peer: Peer) -> None:
        await peer.request()
        origin = peer.server.origin
        words = f"sk-secret failed at {origin}/v1/x ({origin.removeprefix('http://')})"
        body = orjson.dumps({"error": {"message": words, "code": 500}})
        if in_stream:
            peer.send(answer(b"data: " + body + b"\n\n", "200 OK", "Content-Type: text/event-stream"))
        else:
            peer.send(answer(body, "500 Oops"))

    async with RawServer(echoes) as server:
        settings = HttpProviderSettings("acme", f"{server.origin}/v1", Secret("sk-secret"))
        provider = PROVIDER_KINDS.get("openai")(settings)
        with pytest.raises(ProviderError) as caught:
            await collect(provider.stream(CALL, 5.0))
        await provider.close()

    assert str(caught.value) == "acme answered 500: *** failed at ***/x (***)"


@pytest.mark.parametrize("kind", ["azure", "vllm", "sglang"])
async def test_a_key_that_fits_into_no_header_is_told_without_it(kind: str) -> None:
    """As of the adapters that are under the contract of all."""

    async def never(peer: Peer) -> None:
        raise AssertionError("nothing may be sent")

    async with RawServer(never) as server:
        provider = PROVIDER_KINDS.get(kind)(HttpProviderSettings("acme", server.origin, Secret("sk-1\nsk-2")))
        with pytest.raises(ProviderAuthFailed, match="does not fit into an HTTP header") as caught:
            await provider.complete(CALL, 5.0)
        await provider.close()

    assert "sk-1" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.fix}"


FLOODS = {
    "openai": (b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n', "text/event-stream"),
    "anthropic": (b'data: {"type":"ping"}\n\n', "text/event-stream"),
    "gemini": (b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\n\n', "text/event-stream"),
    "ollama": (b'{"message":{"content":"x"},"done":false}\n', "application/x-ndjson"),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_deadline_ends_a_stream_that_never_pauses(kind: str) -> None:
    event, media_type = FLOODS[kind]

    async def floods(peer: Peer) -> None:
        await peer.request()
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n".encode())
        while True:
            peer.send(event * 64)
            await peer.writer.drain()

    async with RawServer(floods) as server:
        provider = PROVIDER_KINDS.get(kind)(HttpProviderSettings("acme", server.origin, Secret("sk-secret")))
        with pytest.raises(ProviderTimeout, match=r"took longer than 0\.3 s"):
            await collect(provider.stream(CALL, 0.3))
        await provider.close()
