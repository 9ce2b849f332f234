"""After faults of every kind no key is in any answer, log line, trace or file but the one place where it belongs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx2 as httpx
import orjson
import pytest
from faults_table import SSE_HEAD, TWO_WORDS, plays
from faults_world import KEYS, World

from support.raw_server import Peer, RawServer, answer

CANARY = KEYS["FAULTS_KEY_A"]
PROMPT: Any = [{"role": "user", "content": "Say hello."}]


async def echoes(peer: Peer) -> None:
    """Refuses, and repeats the key that it was sent in its words, as some vendors do."""
    while True:
        seen = await peer.request()
        said = f"Incorrect API key provided: {seen.header('Authorization')}"
        body = orjson.dumps({"error": {"message": said, "code": "x"}})
        status = "401 Unauthorized" if peer.server.connections % 2 else "500 Internal Server Error"
        peer.send(answer(body, status, f"X-Echo: {CANARY}"))


async def test_no_key_is_found_anywhere_after_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAULTS_KEY_A", CANARY)
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path).start()
    told = ""
    try:
        key, token = world.key()
        upstreams = (echoes, echoes, plays(answer(b"<html>"), SSE_HEAD + TWO_WORDS, then=Peer.reset))
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
            for script in upstreams:
                async with RawServer(script) as server:
                    route = await world.configure(server.origin, provider={"api_key_env": "FAULTS_KEY_A"})
                    for streamed in (False, True):
                        told += await _ask(client, world, route, streamed)
                assert server.requests[0].header("Authorization") == f"Bearer {CANARY}"
        await world.last_trace(key)
    finally:
        await asyncio.to_thread(world.stop)

    assert "upstream_failed" in told
    secrets = (CANARY, token, token.removeprefix("ms-"))
    files = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert b"Say hello." in files  # so the traces are among them, readable
    for secret in secrets:
        assert secret not in told
        assert secret not in caplog.text
        assert secret.encode() not in files


async def _ask(client: httpx.AsyncClient, world: World, route: str, streamed: bool) -> str:
    body = {"model": route, "messages": PROMPT, "stream": streamed}
    said = b""
    try:
        async with client.stream("POST", f"{world.origin}/v1/chat/completions", json=body) as reply:
            said += repr(reply.headers.raw).encode()
            async for piece in reply.aiter_raw():
                said += piece
    except httpx.RemoteProtocolError:
        pass
    return said.decode()
