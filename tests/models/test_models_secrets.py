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
from mainstay.models.types import ChatCall, ChatMessage, ChatProvider
from support.bedrock_server import exception
from support.raw_server import Peer, RawServer, answer

KEY = "sk-canary-5f3c9b1e7d2a4c68"
OPTION = "option-canary-91ab27"
KINDS: Mapping[str, Mapping[str, str | Secret]] = {
    "openai": {},
    "azure": {"api_version": "2024-10-21", "entra_token": Secret(OPTION)},
    "vllm": {},
    "sglang": {},
    "anthropic": {},
    "gemini": {"project": "acme", "access_token": Secret(OPTION)},
    "ollama": {},
    "bedrock": {"region": "us-east-1", "access_key_id": "AKID", "secret_access_key": Secret(OPTION)},
}
CALL = ChatCall("m", (ChatMessage("user", "hi"),), max_tokens=9)
STATUSES = ["400 Bad Request", "401 Unauthorized", "404 Not Found", "429 Too Many", "500 Oops"]


def words(origin: str) -> str:
    return f"bad call with {KEY} and {OPTION} at {origin}"


def refusal(origin: str) -> bytes:
    said = words(origin)
    return orjson.dumps(
        {
            "type": "error",
            "message": said,
            "error": {"message": said, "type": "invalid_request_error", "status": said, "code": 400},
        }
    )


def told_within(kind: str, origin: str) -> bytes:
    """An answer of status 200 that is an error."""
    if kind == "bedrock":
        frame = exception("validationException", words(origin))
        return answer(frame, "200 OK", "Content-Type: application/vnd.amazon.eventstream")
    if kind == "ollama":
        return answer(refusal(origin) + b"\n", "200 OK", "Content-Type: application/x-ndjson")
    event = b"event: error\n" if kind == "anthropic" else b""
    body = event + b"data: " + refusal(origin) + b"\n\n"
    return answer(body, "200 OK", "Content-Type: text/event-stream")


def provider_of(kind: str, origin: str) -> ChatProvider:
    settings = HttpProviderSettings("acme", origin, Secret(KEY), options=KINDS[kind])
    return PROVIDER_KINDS.get(kind)(settings)


def shown(error: ProviderError, kind: str, origin: str) -> list[str]:
    """What a caller can read of what is ours."""
    told = f"{error} {error.detail} {error.fix} {error.upstream_code}"
    options = [value.reveal() for value in KINDS[kind].values() if isinstance(value, Secret)]
    return [word for word in (KEY, *options, origin.removeprefix("http://")) if word in told]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", STATUSES)
async def test_a_refusal_is_told_without_our_key_and_address(
    kind: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def echoes(peer: Peer) -> None:
        await peer.request()
        peer.send(answer(refusal(peer.server.origin), status))

    async with RawServer(echoes) as server:
        provider = provider_of(kind, server.origin)
        for stream in (False, True):
            with pytest.raises(ProviderError) as caught:
                await (collect(provider.stream(CALL, 5.0)) if stream else provider.complete(CALL, 5.0))
            assert caught.value.upstream_status == int(status[:3])
            assert shown(caught.value, kind, server.origin) == []
        await provider.close()
    assert KEY not in caplog.text
    assert OPTION not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_inside_of_a_stream_is_told_without_our_key_and_address(kind: str) -> None:
    async def echoes(peer: Peer) -> None:
        await peer.request()
        peer.send(told_within(kind, peer.server.origin))

    async with RawServer(echoes) as server:
        provider = provider_of(kind, server.origin)
        with pytest.raises(ProviderError, match="bad call with") as caught:
            await collect(provider.stream(CALL, 5.0))
        await provider.close()
        assert shown(caught.value, kind, server.origin) == []
