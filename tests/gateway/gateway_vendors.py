"""The vendors behind the gateway: each puts what a model says into its own wire format, and tells what it was asked.

`Said` and `Heard` are in no vendor's words, so that one table of features serves them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from support import anthropic_server, bedrock_server, gemini_server, ollama_server
from support.anthropic_server import PIECE, AnthropicServer
from support.azure_server import AzureServer
from support.bedrock_server import BedrockServer
from support.gemini_server import GeminiServer
from support.ollama_server import OllamaServer
from support.openai_server import OpenAiServer
from support.openai_server import Reply as OpenAiReply

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
SIGNATURE: Final = "c2lnbmVk"


@dataclass(frozen=True)
class Called:
    """A tool call: by the model when said, by the client's history when heard."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What a model says. `others` are the texts of further choices; `stopped_by` the stop sequence it met."""

    text: str = "Hello world"
    thought: str = ""
    calls: tuple[Called, ...] = ()
    finish: Finish = "stop"
    others: tuple[str, ...] = ()
    logprobs: bool = False
    stopped_by: str | None = None


@dataclass(frozen=True)
class Heard:
    """What a vendor was asked, None or empty where nothing was said of it.

    `turns` are (role, text); `results` (call id or name, text); `marks` counts the places to be cached.
    """

    model: str
    turns: tuple[tuple[str, str], ...]
    tools: tuple[str, ...] = ()
    forced: str | None = None
    schema: Mapping[str, Any] | None = None
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    marks: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    logprobs: bool = False
    thinks: bool = False
    thoughts: tuple[tuple[str, str], ...] = ()
    calls: tuple[Called, ...] = ()
    results: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Counted:
    """Tokens of every answer, in disjoint classes; `written` to the vendor's cache, `for_an_hour` of them for one."""

    plain: int = 10
    cached: int = 20
    written: int = 0
    for_an_hour: int = 0
    output: int = 9
    reasoning: int = 5

    @property
    def input(self) -> int:
        return self.plain + self.cached + self.written

    @property
    def cost_nusd(self) -> int:
        """At the prices of the project file: 1, 0.10, 1.25 and 2 (to be kept an hour), 2 dollars per million tokens."""
        writing = (self.written - self.for_an_hour) * 1250 + self.for_an_hour * 2000
        return self.plain * 1000 + self.cached * 100 + writing + self.output * 2000


class Vendor:
    """One provider of the project file. `settings` is its entry there."""

    name: str
    title: str
    """For people."""
    kind: str
    server: Any
    counted = Counted()
    signs = False
    """Whether its thinking is signed, to be handed back."""
    streams_arguments = True
    """Whether arguments of tool calls come in pieces."""
    keeps_call_ids = True

    @property
    def model(self) -> str:
        return f"{self.name}/{self.vendor_model}"

    vendor_model = "m-1"

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def plays(self, *said: Said) -> None:
        self.server.requests.clear()
        self.server.hung_up.clear()
        self.server.plays(*(self.reply(one) for one in said))

    def reply(self, said: Said) -> Any:
        raise NotImplementedError

    def fails(self, status: int, error: Mapping[str, Any] | None = None, **headers: str) -> None:
        """Every request is refused like this from now on."""
        raise NotImplementedError

    def heard(self) -> Heard:
        """The last request."""
        return self.hear(self.server.requests[-1].body)

    def hear(self, body: Mapping[str, Any]) -> Heard:
        raise NotImplementedError


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
    logprobs = {"content": [_logprob(word) for word in _tokens(said.text)]} if said.logprobs else None
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


def _tokens(text: str) -> list[str]:
    """As a tokenizer cuts: joined they are the text."""
    return re.findall(r"\s*\S+", text)


def _logprob(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []}


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
    for piece in re.findall(r"\s*\S+", text) if by_word else pieces(text):
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


class BlockVendor(Vendor):
    """A vendor whose server takes a whole answer and streams it itself."""

    def fails(self, status: int, error: Mapping[str, Any] | None = None, **headers: str) -> None:
        self.server.requests.clear()
        self.server.plays(anthropic_server.Reply(status=status, error=error, headers=headers))

    def reply(self, said: Said) -> anthropic_server.Reply:
        return anthropic_server.Reply(self.whole(said))

    def whole(self, said: Said) -> dict[str, Any]:
        raise NotImplementedError


class AnthropicVendor(BlockVendor):
    name = kind = "anthropic"
    title = "Anthropic"
    vendor_model = "claude-test-1"
    signs = True
    counted = Counted(written=7, for_an_hour=3)

    def __init__(self) -> None:
        self.server = AnthropicServer()

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.server.base_url, "api_key_env": "GATEWAY_TEST_KEY"}

    def whole(self, said: Said) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if said.thought:
            content.append({"type": "thinking", "thinking": said.thought, "signature": SIGNATURE})
        if said.text:
            content.append({"type": "text", "text": said.text})
        content += [
            {"type": "tool_use", "id": c.id, "name": c.name, "input": dict(c.arguments)} for c in said.calls
        ]
        reasons = {
            "stop": "stop_sequence" if said.stopped_by else "end_turn",
            "length": "max_tokens",
            "tool_calls": "tool_use",
            "content_filter": "refusal",
        }
        return anthropic_server.message(
            *content, stop_reason=reasons[said.finish], stop_sequence=said.stopped_by
        )

    def hear(self, body: Mapping[str, Any]) -> Heard:
        turns = [(m["role"], _blocks(m["content"])) for m in body["messages"]]
        if "system" in body:
            turns.insert(0, ("system", _blocks(body["system"])))
        blocks = [block for _, said in turns for block in said]
        config, choice = body.get("output_config", {}), body.get("tool_choice", {})
        return Heard(
            model=body["model"],
            turns=tuple((role, "".join(b.get("text", "") for b in said)) for role, said in turns),
            tools=tuple(tool["name"] for tool in body.get("tools", ())),
            forced=choice.get("name"),
            schema=config.get("format", {}).get("schema"),
            images=tuple(b["source"]["data"] for b in blocks if b["type"] == "image"),
            files=tuple(b["source"]["data"] for b in blocks if b["type"] == "document"),
            marks=sum("cache_control" in b for b in [*blocks, *body.get("tools", ())]),
            stop=tuple(body.get("stop_sequences", ())),
            max_tokens=body["max_tokens"],
            temperature=body.get("temperature"),
            thinks="thinking" in body,
            thoughts=tuple((b["thinking"], b["signature"]) for b in blocks if b["type"] == "thinking"),
            calls=tuple(Called(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"),
            results=tuple(
                (b["tool_use_id"], "".join(c.get("text", "") for c in _blocks(b["content"])))
                for b in blocks
                if b["type"] == "tool_result"
            ),
        )


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class BedrockVendor(BlockVendor):
    name = kind = "bedrock"
    title = "Amazon Bedrock"
    vendor_model = "anthropic.claude-test-1"
    signs = True
    counted = Counted(written=7, for_an_hour=3)

    def __init__(self) -> None:
        self.server = BedrockServer()

    def settings(self) -> dict[str, Any]:
        return {
            "base_url": self.server.base_url,
            "api_key_env": "GATEWAY_TEST_BEDROCK_KEY",
            "options": {"region": "eu-test-1"},
        }

    def whole(self, said: Said) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if said.thought:
            words = {"text": said.thought, "signature": SIGNATURE}
            content.append({"reasoningContent": {"reasoningText": words}})
        if said.text:
            content.append({"text": said.text})
        content += [
            {"toolUse": {"toolUseId": c.id, "name": c.name, "input": dict(c.arguments)}} for c in said.calls
        ]
        reasons = {
            "stop": "stop_sequence" if said.stopped_by else "end_turn",
            "length": "max_tokens",
            "tool_calls": "tool_use",
            "content_filter": "content_filtered",
        }
        return bedrock_server.answer(*content, stopReason=reasons[said.finish])

    def heard(self) -> Heard:
        seen = self.server.requests[-1]
        return self.hear({**seen.body, "model": seen.path.split("/")[2]})

    def hear(self, body: Mapping[str, Any]) -> Heard:
        turns = [(m["role"], m["content"]) for m in body["messages"]]
        if "system" in body:
            turns.insert(0, ("system", body["system"]))
        blocks = [block for _, said in turns for block in said]
        tools, settings = body.get("toolConfig", {}), body.get("inferenceConfig", {})
        schema = body.get("outputConfig", {}).get("textFormat", {}).get("structure", {}).get("jsonSchema")
        reasoning = [b["reasoningContent"]["reasoningText"] for b in blocks if "reasoningContent" in b]
        specs = [t["toolSpec"] for t in tools.get("tools", ()) if "toolSpec" in t]
        return Heard(
            model=body["model"],
            turns=tuple((role, "".join(b.get("text", "") for b in said)) for role, said in turns),
            tools=tuple(spec["name"] for spec in specs),
            forced=tools.get("toolChoice", {}).get("tool", {}).get("name"),
            schema=None if schema is None else json.loads(schema["schema"]),
            images=tuple(b["image"]["source"]["bytes"] for b in blocks if "image" in b),
            files=tuple(b["document"]["source"]["bytes"] for b in blocks if "document" in b),
            marks=sum("cachePoint" in b for b in blocks),
            stop=tuple(settings.get("stopSequences", ())),
            max_tokens=settings.get("maxTokens"),
            temperature=settings.get("temperature"),
            thinks="thinking" in body.get("additionalModelRequestFields", {}),
            thoughts=tuple((r["text"], r["signature"]) for r in reasoning),
            calls=tuple(
                Called(b["toolUse"]["toolUseId"], b["toolUse"]["name"], b["toolUse"]["input"])
                for b in blocks
                if "toolUse" in b
            ),
            results=tuple(
                (b["toolResult"]["toolUseId"], "".join(c.get("text", "") for c in b["toolResult"]["content"]))
                for b in blocks
                if "toolResult" in b
            ),
        )


class GeminiVendor(BlockVendor):
    name = kind = "gemini"
    title = "Google Gemini"
    vendor_model = "gemini-test-1"
    signs = True
    streams_arguments = False

    def __init__(self) -> None:
        self.server = GeminiServer()

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.server.base_url, "api_key_env": "GATEWAY_TEST_KEY"}

    def whole(self, said: Said) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        if said.thought:
            parts.append({"text": said.thought, "thought": True, "thoughtSignature": SIGNATURE})
        if said.text:
            parts.append({"text": said.text})
        parts += [
            {"functionCall": {"id": c.id, "name": c.name, "args": dict(c.arguments)}} for c in said.calls
        ]
        reasons = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
        finish = reasons[said.finish]
        more: dict[str, Any] = {}
        if said.logprobs:
            chosen = [{"token": word, "logProbability": -0.5} for word in _tokens(said.text)]
            more["logprobsResult"] = {"chosenCandidates": chosen}
        first = gemini_server.candidate(*parts, finish=finish, **more)
        others = [
            gemini_server.candidate(gemini_server.text(words), finish=finish, index=index)
            for index, words in enumerate(said.others, 1)
        ]
        return gemini_server.answer() | {"candidates": [first, *others]}

    def heard(self) -> Heard:
        seen = self.server.requests[-1]
        return self.hear({**seen.body, "model": seen.path.split("models/")[1].split(":")[0]})

    def hear(self, body: Mapping[str, Any]) -> Heard:
        turns = [(c["role"], c["parts"]) for c in body["contents"]]
        if "systemInstruction" in body:
            turns.insert(0, ("system", body["systemInstruction"]["parts"]))
        parts = [part for _, said in turns for part in said]
        config = body.get("generationConfig", {})
        calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
        media = [p["inlineData"] for p in parts if "inlineData" in p]
        thoughts = [p for p in parts if p.get("thought")]
        made = [p["functionCall"] for p in parts if "functionCall" in p]
        return Heard(
            model=body["model"],
            turns=tuple(
                (
                    "assistant" if role == "model" else role,
                    "".join(p.get("text", "") for p in said if not p.get("thought")),
                )
                for role, said in turns
            ),
            tools=tuple(
                f["name"] for tool in body.get("tools", ()) for f in tool.get("functionDeclarations", ())
            ),
            forced=next(iter(calling.get("allowedFunctionNames", ())), None),
            schema=config.get("responseJsonSchema"),
            images=tuple(m["data"] for m in media if m["mimeType"].startswith("image/")),
            files=tuple(m["data"] for m in media if m["mimeType"] == "application/pdf"),
            stop=tuple(config.get("stopSequences", ())),
            seed=config.get("seed"),
            n=config.get("candidateCount"),
            max_tokens=config.get("maxOutputTokens"),
            temperature=config.get("temperature"),
            logprobs=bool(config.get("responseLogprobs")),
            thinks="thinkingConfig" in config,
            thoughts=tuple((p["text"], p["thoughtSignature"]) for p in thoughts),
            calls=tuple(Called(c["id"], c["name"], c["args"]) for c in made),
            results=tuple(
                (p["functionResponse"]["id"], p["functionResponse"]["response"]["output"])
                for p in parts
                if "functionResponse" in p
            ),
        )


class OllamaVendor(BlockVendor):
    name = kind = "ollama"
    title = "Ollama"
    vendor_model = "qwen3:4b"
    streams_arguments = False
    counted = Counted(plain=26, cached=0, reasoning=0)

    def __init__(self) -> None:
        self.server = OllamaServer()

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.server.base_url}

    def whole(self, said: Said) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": said.thought} if said.thought else {}
        if said.calls:
            more["tool_calls"] = [ollama_server.tool_call(c.name, c.arguments, id=c.id) for c in said.calls]
        logprobs = [_logprob(word) for word in _tokens(said.text)] if said.logprobs else None
        done = "length" if said.finish == "length" else "stop"
        return ollama_server.answer(said.text, done_reason=done, logprobs=logprobs, **more)

    def hear(self, body: Mapping[str, Any]) -> Heard:
        messages, options = body["messages"], body.get("options", {})
        made = [call for m in messages for call in m.get("tool_calls", ())]
        return Heard(
            model=body["model"],
            turns=tuple((m["role"], m["content"]) for m in messages if m["role"] != "tool"),
            tools=tuple(t["function"]["name"] for t in body.get("tools", ())),
            schema=body.get("format"),
            images=tuple(image for m in messages for image in m.get("images", ())),
            stop=tuple(options.get("stop", ())),
            seed=options.get("seed"),
            max_tokens=options.get("num_predict"),
            temperature=options.get("temperature"),
            logprobs=bool(body.get("logprobs")),
            thinks="think" in body,
            calls=tuple(Called(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in made),
            results=tuple((m["tool_call_id"], m["content"]) for m in messages if m["role"] == "tool"),
        )


def pieces(whole: str) -> list[str]:
    return [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]


def vendors() -> dict[str, Vendor]:
    """All of them by name; their servers are started by the stage."""
    kinds: tuple[type[Vendor], ...] = (
        OpenAiVendor,
        AzureVendor,
        AnthropicVendor,
        BedrockVendor,
        GeminiVendor,
        OllamaVendor,
        WithoutSchemas,
    )
    return {kind.name: kind() for kind in kinds}


KEYS: Final[Mapping[str, str]] = {
    "GATEWAY_TEST_KEY": "sk-upstream",
    "GATEWAY_TEST_AZURE_KEY": "azure-key",
    "GATEWAY_TEST_BEDROCK_KEY": bedrock_server.BEARER,
}
"""What the project file's variables hold."""

__all__ = ["KEYS", "SIGNATURE", "Called", "Counted", "Heard", "Said", "Vendor", "vendors"]
