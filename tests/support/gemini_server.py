"""A local HTTP server that speaks the Gemini API by script: answers, errors, silence, cut streams.

Follows the Gemini API reference (v1beta), "Generating content", "Counting tokens" and "Embeddings", with "Thought
signatures" and "Troubleshooting", and Vertex AI's "Generate content with the Gemini API", as of 2026-11. An answer is
given whole; asked for a stream, the server sends it as chunks, texts in small pieces, calls of functions whole, each
chunk with the usage so far. Without `alt=sse`, or as a gateway that drops it (`drops_sse`), chunks come as a JSON array.

    async with GeminiServer() as upstream:
        upstream.plays(Reply(answer(text("Hi"))), Reply(status=429, error=status_error(429, "RESOURCE_EXHAUSTED")))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from support.anthropic_server import PIECE, Reply, ScriptedServer, SeenRequest

USAGE = {
    "promptTokenCount": 30,
    "cachedContentTokenCount": 20,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 5,
    "totalTokenCount": 39,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}],
}
VECTOR = [0.5, -0.25, 1.0]


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"text": words, **more}


def candidate(
    *parts: Mapping[str, Any], finish: str | None = "STOP", index: int = 0, **more: Any
) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)} if parts else {}
    return {"content": content, "finishReason": finish, "index": index, **more}


def answer(*parts: Mapping[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    return {
        "candidates": [candidate(*parts, finish=finish)],
        "usageMetadata": dict(USAGE),
        "modelVersion": "gemini-test-001",
        "responseId": "resp_1",
        **more,
    }


def status_error(
    code: int, word: str, message: str = "scripted", *details: Mapping[str, Any]
) -> dict[str, Any]:
    """A `google.rpc.Status` as JSON."""
    return {
        "code": code,
        "message": message,
        "status": word,
        **({"details": list(details)} if details else {}),
    }


class GeminiServer(ScriptedServer):
    def __init__(self) -> None:
        super().__init__()
        self.drops_sse = False

    async def answer(self, request: web.Request, seen: SeenRequest, reply: Reply) -> web.StreamResponse:
        method = seen.path.partition("?")[0].rpartition(":")[2]
        streamed = method == "streamGenerateContent"
        if reply.status != 200:
            body: Any = {"error": dict(reply.error)} if reply.error is not None else None
            return web.json_response(
                [body] if streamed and self.drops_sse else body, status=reply.status, headers=reply.headers
            )
        if method == "countTokens":
            return web.json_response({"totalTokens": 42, "promptTokensDetails": []})
        if method == "batchEmbedContents":
            vectors = [{"values": VECTOR} for _ in seen.body["requests"]]
            return web.json_response(
                reply.answer if "embeddings" in reply.answer else {"embeddings": vectors}
            )
        assert method in ("generateContent", "streamGenerateContent"), seen.path
        if not streamed:
            return web.json_response(reply.answer, headers=reply.headers)
        frames = reply.frames or stream(reply.answer)
        if self.drops_sse or not seen.path.endswith("?alt=sse"):
            self.content_type = "application/json"
            frames = as_array(frames)
        return await self.send(request, reply, frames)


def stream(whole: Mapping[str, Any]) -> list[bytes]:
    """The frames of an answer."""
    return [frame(chunk) for chunk in chunks(whole)]


def frame(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\r\n\r\n".encode()


def as_array(frames: Sequence[bytes]) -> list[bytes]:
    bodies = [f.removeprefix(b"data: ").strip() for f in frames]
    return [(b"[" if at == 0 else b",\r\n") + body for at, body in enumerate(bodies)] + [b"]"]


def chunks(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Candidates in turns; the last chunk of each has its finishReason and what else it has."""
    rest = {name: value for name, value in whole.items() if name not in ("candidates", "usageMetadata")}
    counted = ("promptTokenCount", "totalTokenCount")
    begun = {name: whole["usageMetadata"][name] for name in counted if name in whole["usageMetadata"]}
    for one in whole.get("candidates", ()):
        pieces = [piece for part in one["content"].get("parts", ()) for piece in _pieces(part)]
        for piece in pieces[:-1]:
            yield {"candidates": [_part_of(one, piece)], "usageMetadata": begun, **rest}
        last = {**one, "content": {"role": "model", "parts": pieces[-1:]}} if pieces else one
        yield {"candidates": [last], "usageMetadata": whole["usageMetadata"], **rest}
    if not whole.get("candidates"):
        yield dict(whole)


def _part_of(one: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": [piece]}, "index": one["index"]}


def _pieces(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A text in pieces; its signature comes with the last one."""
    words = part.get("text")
    if not words:
        return [dict(part)]
    kind = {"thought": True} if part.get("thought") else {}
    pieces = [{"text": words[at : at + PIECE], **kind} for at in range(0, len(words), PIECE)]
    return [*pieces[:-1], {**part, **pieces[-1]}]
