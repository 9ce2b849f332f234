"""How a failure looks on each surface: before any word an error with its status, after words one in the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import orjson
import pytest
from faults_table import SSE_HEAD, TWO_WORDS, plays, refuses
from faults_world import World

from support.raw_server import Peer, RawServer

BREAKS = plays(b"", SSE_HEAD + TWO_WORDS, then=Peer.reset)
ASKS: Mapping[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"prompt": "Hi"},
    "responses": {"input": "Hi", "store": False},
    "messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50},
}


@dataclass
class Broken:
    """What came until the connection was dropped."""

    text: str
    dropped: bool

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        return [orjson.loads(line) for line in lines if line != "[DONE]"]


async def stream(world: World, token: str, path: str, model: str) -> Broken:
    text = b""
    body = {"model": model, "stream": True, **ASKS[path]}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=f"{world.origin}/v1/") as client,
        client.stream("POST", path, json=body, headers=headers) as response,
    ):
        assert response.status_code == 200
        try:
            async for piece in response.aiter_raw():
                text += piece
        except httpx.RemoteProtocolError:
            return Broken(text.decode(), dropped=True)
    return Broken(text.decode(), dropped=False)


@pytest.mark.parametrize("path", ASKS)
async def test_a_stream_that_breaks_ends_in_an_error_and_a_dropped_connection(
    world: World, path: str
) -> None:
    _, token = world.key()
    async with RawServer(BREAKS) as server:
        seen = await stream(world, token, path, await world.configure(server.origin))

    assert seen.dropped
    assert "[DONE]" not in seen.text
    last = seen.events[-1]
    if path == "messages":
        assert "event: error\n" in seen.text
        assert "message_stop" not in seen.text
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
        assert last["mainstay"]["code"] == "upstream_failed"
    elif path == "responses":
        assert [event["type"] for event in seen.events][-2:] == ["error", "response.failed"]
        assert last["response"]["error"]["code"] == "upstream_failed"
        assert "response.completed" not in seen.text
    else:
        assert (last["error"]["type"], last["error"]["code"]) == ("upstream_error", "upstream_failed")
        assert last["error"]["mainstay"]["attempts"][0]["code"] == "provider_stream_broken"


async def test_the_official_sdks_raise_when_a_stream_breaks(world: World) -> None:
    _, token = world.key()
    async with RawServer(BREAKS) as server:
        model = await world.configure(server.origin)
        url = f"{world.origin}/v1"
        async with (
            openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0) as by_openai,
            anthropic.AsyncAnthropic(base_url=world.origin, api_key=token, max_retries=0) as by_anthropic,
        ):
            with pytest.raises(openai.APIError, match="stopped in the middle"):
                async for _ in await by_openai.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "Hi"}], stream=True
                ):
                    pass
            with pytest.raises(openai.APIError, match="stopped in the middle"):
                async for _ in await by_openai.responses.create(model=model, input="Hi", stream=True):
                    pass
            with pytest.raises(anthropic.APIStatusError, match="stopped in the middle"):
                async with by_anthropic.messages.stream(
                    model=model, max_tokens=50, messages=[{"role": "user", "content": "Hi"}]
                ) as answer:
                    await answer.get_final_message()


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_before_any_word_an_error_has_its_status_and_form(
    world: World, path: str, streamed: bool
) -> None:
    _, token = world.key()
    async with RawServer(refuses("503 Service Unavailable")) as server, httpx.AsyncClient() as client:
        body = {"model": await world.configure(server.origin), "stream": streamed, **ASKS[path]}
        reply = await client.post(
            f"{world.origin}/v1/{path}", json=body, headers={"Authorization": f"Bearer {token}"}
        )

    assert reply.status_code == 502
    assert reply.headers["x-should-retry"] == "true"
    assert reply.headers["x-request-id"] == reply.headers["request-id"]
    said = reply.json()
    if path == "messages":
        assert said["type"] == "error"
        assert (said["error"]["type"], said["mainstay"]["code"]) == ("api_error", "upstream_failed")
        assert said["request_id"] == reply.headers["request-id"]
    else:
        assert (said["error"]["type"], said["error"]["code"]) == ("upstream_error", "upstream_failed")
        assert len(said["error"]["mainstay"]["attempts"]) == 2
