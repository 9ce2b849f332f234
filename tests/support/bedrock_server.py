"""A local HTTP server that speaks Bedrock's Converse and ConverseStream by script, and checks signatures.

Follows the Amazon Bedrock API reference ("Converse", "ConverseStream"; service model 2023-09-30), the Smithy
specification of event streams and AWS Signature Version 4. An answer is given whole, as Converse gives it;
ConverseStream gets it as the documented events in small pieces. A request that is neither signed by
CREDENTIALS nor carries BEARER is refused as AWS refuses it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from aiohttp import web

from mainstay.core.secret import Secret
from mainstay.models.providers.aws_sigv4 import AwsCredentials, sign
from support.anthropic_server import PIECE, Reply, ScriptedServer, SeenRequest

CREDENTIALS = AwsCredentials(
    "AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), Secret("token/+==")
)
BEARER = "bedrock-api-key-example"
REGION = "eu-test-1"
USAGE = {
    "inputTokens": 10,
    "outputTokens": 9,
    "totalTokens": 46,
    "cacheReadInputTokens": 20,
    "cacheWriteInputTokens": 7,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 3}, {"ttl": "5m", "inputTokens": 4}],
}


def answer(*content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": list(content)}},
        "stopReason": "end_turn",
        "usage": dict(USAGE),
        "metrics": {"latencyMs": 12},
        **more,
    }


class BedrockServer(ScriptedServer):
    content_type = "application/vnd.amazon.eventstream"

    async def answer(self, request: web.Request, seen: SeenRequest, reply: Reply) -> web.StreamResponse:
        if not self._authentic(seen):
            return _failure("InvalidSignatureException", 403, "The request signature does not match.", {})
        if reply.status != 200:
            error = dict(reply.error or {})
            return _failure(error.get("name"), reply.status, error.get("message", "scripted"), reply.headers)
        if seen.path.endswith("/converse"):
            return web.json_response(reply.answer, headers=reply.headers)
        assert seen.path.endswith("/converse-stream"), seen.path
        return await self.send(request, reply, reply.frames or stream(reply.answer))

    def _authentic(self, seen: SeenRequest) -> bool:
        sent = seen.headers.get("Authorization", "")
        if not sent.startswith("AWS4-HMAC-SHA256 "):
            return sent == f"Bearer {BEARER}"
        names = sent.split("SignedHeaders=")[1].split(",")[0].split(";")
        given = {name.lower(): value for name, value in seen.headers.items()}
        again = sign(
            CREDENTIALS,
            method="POST",
            url=f"http://{given['host']}{seen.path}",
            headers={
                name: given[name]
                for name in names
                if name not in ("host", "x-amz-date", "x-amz-security-token")
            },
            body=seen.data,
            region=REGION,
            service="bedrock",
            at=datetime.strptime(given["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        )
        return again["Authorization"] == sent


def _failure(name: str | None, status: int, words: str, headers: Mapping[str, str]) -> web.Response:
    named = {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/"} if name else {}
    return web.json_response({"message": words}, status=status, headers={**headers, **named})


def stream(whole: Mapping[str, Any]) -> list[bytes]:
    return [event(kind, payload) for kind, payload in events(whole)]


def events(whole: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant", "p": "abcdefgh"}  # padding, as Bedrock adds it
    for index, block in enumerate(whole["output"]["message"]["content"]):
        for kind, payload in _streamed(block):
            yield kind, {**payload, "contentBlockIndex": index}
        yield "contentBlockStop", {"contentBlockIndex": index}
    yield "messageStop", {"stopReason": whole["stopReason"]}
    if "usage" in whole:
        yield "metadata", {"usage": whole["usage"], "metrics": {"latencyMs": 12}}


def _streamed(block: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "toolUse" in block:
        tool = block["toolUse"]
        start = {"toolUseId": tool["toolUseId"], "name": tool["name"]}
        yield "contentBlockStart", {"start": {"toolUse": start}}
        for piece in _pieces(json.dumps(tool["input"])) if tool["input"] else []:
            yield "contentBlockDelta", {"delta": {"toolUse": {"input": piece}}}
    for piece in _pieces(block.get("text", "")):
        yield "contentBlockDelta", {"delta": {"text": piece}}
    reasoning = block.get("reasoningContent", {})
    if "redactedContent" in reasoning:
        yield "contentBlockDelta", {"delta": {"reasoningContent": reasoning}}
    if "reasoningText" in reasoning:
        for piece in _pieces(reasoning["reasoningText"]["text"]):
            yield "contentBlockDelta", {"delta": {"reasoningContent": {"text": piece}}}
        signature = reasoning["reasoningText"]["signature"]
        yield "contentBlockDelta", {"delta": {"reasoningContent": {"signature": signature}}}


def event(kind: str, payload: Mapping[str, Any]) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return packed(headers, json.dumps(payload).encode())


def exception(kind: str, words: str = "scripted") -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return packed(headers, json.dumps({"message": words}).encode())


def packed(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message of an event stream whose headers are strings."""
    block = b"".join(_header(name, value) for name, value in headers.items())
    lengths = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    whole = lengths + struct.pack(">I", crc32(lengths)) + block + payload
    return whole + struct.pack(">I", crc32(whole))


def _header(name: str, value: str) -> bytes:
    key, data = name.encode(), value.encode()
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", 7, len(data)) + data


def _pieces(whole: str) -> Sequence[str]:
    return [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]
