"""Whatever a provider repeats of our key and its address, no caller reads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import orjson
import pytest

from mainstay.core.secret import Secret
from mainstay.models import ProviderError
from mainstay.models.collect import collect
from mainstay.models.providers import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import ChatCall, ChatMessage
from support.raw_server import Peer, RawServer, answer

CANARY = "sk-canary-5f3c9b1e7d2a4c68"
OPTION = "option-canary-91ab27"
KINDS: Mapping[str, Mapping[str, str | Secret]] = {
    "openai": {},
    "azure": {"api_version": "2024-10-21"},
    "vllm": {},
    "sglang": {},
    "anthropic": {},
    "gemini": {},
    "ollama": {},
    "bedrock": {"region": "us-east-1"},
}
CALL = ChatCall("m", (ChatMessage("user", "hi"),), max_tokens=9)


def said(origin: str) -> bytes:
    words = f"bad call with {CANARY} and {OPTION} at {origin}"
    return orjson.dumps(
        {
            "type": "error",
            "error": {"message": words, "type": "invalid_request_error", "status": words, "code": 400},
        }
    )


def texts(error: BaseException) -> str:
    assert isinstance(error, ProviderError)
    return f"{error} {error.detail} {error.fix} {error.upstream_code}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "429 Too Many", "500 Oops"]
)
async def test_a_refusal_is_told_without_our_key_and_address(
    kind: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def echoes(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(said(peer.server.origin), status))

    async with RawServer(echoes) as server:
        provider = PROVIDER_KINDS.get(kind)(
            HttpProviderSettings("acme", server.origin, Secret(CANARY), options=KINDS[kind])
        )
        for stream in (False, True):
            with pytest.raises(ProviderError) as caught:
                await (collect(provider.stream(CALL, 5.0)) if stream else provider.complete(CALL, 5.0))
            told = texts(caught.value)
            assert CANARY not in told
            assert server.origin not in told
        await provider.close()
    assert CANARY not in caplog.text


@pytest.mark.parametrize("kind", ["openai", "azure", "vllm", "sglang", "anthropic", "gemini", "ollama"])
async def test_an_error_inside_of_a_stream_is_told_without_our_key_and_address(kind: str) -> None:
    async def echoes(peer: Peer) -> None:
        await peer.request()
        body = said(peer.server.origin)
        if kind == "ollama":
            peer.send(answer(body + b"\n", "200 OK", "Content-Type: application/x-ndjson"))
        else:
            event = b"event: error\n" if kind == "anthropic" else b""
            peer.send(answer(event + b"data: " + body + b"\n\n", "200 OK", "Content-Type: text/event-stream"))

    async with RawServer(echoes) as server:
        provider = PROVIDER_KINDS.get(kind)(
            HttpProviderSettings("acme", server.origin, Secret(CANARY), options=KINDS[kind])
        )
        with pytest.raises(ProviderError) as caught:
            await collect(provider.stream(CALL, 5.0))
        await provider.close()
        told = texts(caught.value)
        assert CANARY not in told
        assert server.origin not in told
