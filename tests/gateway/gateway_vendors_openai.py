"""Vendors whose wire format is OpenAI's chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gateway_said import Called, Counted, Heard, Said, Vendor, logprob_of, pieces, words_of

from support.azure_server import AzureServer
from support.openai_server import OpenAiServer
from support.openai_server import Reply as OpenAiReply


class OpenAiVendor(Vendor):
    name, kind = "openai-like", "openai"
    title = "OpenAI and compatible"

    def __init__(self) -> None:
        self.server: Any = OpenAiServer()

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.server.base_url, "api_key_env": "GATEWAY_TEST_KEY"}

    def reply(self, said: Said) -> OpenAiReply:
        whole = openai_whole(said, self.counted)
        return OpenAiReply(whole=whole, raw=b"".join(openai_frames(whole)))

    def fails(self, status: int, error: Mapping[str, Any] | None = None, **headers: str) -> None:
        self.server.requests.clear()
        self.server.plays(OpenAiReply(status=status, error=error, headers=headers))

    def hear(self, body: Mapping[str, Any]) -> Heard:
        messages = body["messages"]
        parts = [p for m in messages if isinstance(m["content"], list) for p in m["content"]]
        choice = body.get("tool_choice")
        shape = body.get("response_format") or {}
        calls = [c for m in messages for c in m.get("tool_calls") or ()]
        return Heard(
            model=body["model"],
            turns=tuple((m["role"], openai_text(m["content"])) for m in messages if m["role"] != "tool"),
            tools=tuple(t["function"]["name"] for t in body.get("tools", ())),
            forced=choice["function"]["name"] if isinstance(choice, dict) else None,
            one_call=body.get("parallel_tool_calls") is False,
            schema=shape.get("json_schema", {}).get("schema"),
            images=tuple(p["image_url"]["url"].split(",")[-1] for p in parts if p["type"] == "image_url"),
            files=tuple(p["file"]["file_data"].split(",")[-1] for p in parts if p["type"] == "file"),
            marks=sum("cache_control" in p for p in parts),
            stop=tuple([body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or ()),
            seed=body.get("seed"),
            n=body.get("n"),
            max_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
            temperature=body.get("temperature"),
            logprobs=bool(body.get("logprobs")),
            thinks=body.get("reasoning_effort") is not None,
            calls=tuple(_heard_call(c["id"], c["function"]) for c in calls),
            results=tuple(
                (m["tool_call_id"], openai_text(m["content"])) for m in messages if m["role"] == "tool"
            ),
        )


def _heard_call(call_id: str, function: Mapping[str, Any]) -> Called:
    return Called(call_id, function["name"], json.loads(function["arguments"]))


def openai_text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def openai_whole(said: Said, counted: Counted) -> dict[str, Any]:
    """A `chat.completion`."""
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
        for c in said.calls
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said.text or (None if calls else "")}
    message |= {"reasoning_content": said.thought} if said.thought else {}
    message |= {"tool_calls": calls} if calls else {}
    logprobs = {"content": [logprob_of(word) for word in words_of(said.text)]} if said.logprobs else None
    more = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": said.finish}
        for index, text in enumerate(said.others, 1)
    ]
    first = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": said.finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1-2026",
        "choices": [first, *more],
        "usage": {
            "prompt_tokens": counted.input,
            "completion_tokens": counted.output,
            "total_tokens": counted.input + counted.output,
            "prompt_tokens_details": {"cached_tokens": counted.cached},
            "completion_tokens_details": {"reasoning_tokens": counted.reasoning},
        },
    }


def openai_frames(whole: Mapping[str, Any]) -> Iterator[bytes]:
    """The same answer as a stream: words and arguments in small pieces, the usage in a chunk of its own."""
    for choice in whole["choices"]:
        told = list(choice["logprobs"]["content"]) if choice.get("logprobs") else []
        for delta in _openai_deltas(choice["message"], by_word=bool(told)):
            logprobs = {"content": [told.pop(0)]} if told and delta.get("content") else None
            yield _openai_chunk(whole, choice["index"], delta, None, logprobs)
        yield _openai_chunk(whole, choice["index"], {}, choice["finish_reason"], None)
    head = {name: whole[name] for name in ("id", "created", "model")}
    last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": whole["usage"]}
    yield b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n"


def _openai_chunk(
    whole: Mapping[str, Any], index: int, delta: Mapping[str, Any], finish: str | None, logprobs: Any
) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    head = {name: whole[name] for name in ("id", "created", "model")}
    return (
        b"data: "
        + json.dumps({**head, "object": "chat.completion.chunk", "choices": [choice]}).encode()
        + b"\n\n"
    )


def _openai_deltas(message: Mapping[str, Any], by_word: bool) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for piece in pieces(message.get("reasoning_content") or ""):
        yield {"reasoning_content": piece}
    text = message["content"] or ""
    for piece in words_of(text) if by_word else pieces(text):
        yield {"content": piece}
    for at, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {
            "tool_calls": [
                {
                    "index": at,
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": function["name"], "arguments": ""},
                }
            ]
        }
        for piece in pieces(function["arguments"]):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


class WithoutSchemas(OpenAiVendor):
    """A server of OpenAI's kind whose models know no `json_schema`: the gateway emulates it."""

    name = "no-schemas"
    title = "a server without JSON Schema"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "lacks": ["json_schema"]}


class SickVendor(OpenAiVendor):
    """For tests of failures: several providers of the project file share its server."""

    name = "sick"
    vendor_model = "m"


class AzureVendor(OpenAiVendor):
    name, kind = "azure", "azure"
    title = "Azure OpenAI"

    def __init__(self) -> None:
        self.server = AzureServer(deployment=self.vendor_model)

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.server.endpoint, "api_key_env": "GATEWAY_TEST_AZURE_KEY"}
