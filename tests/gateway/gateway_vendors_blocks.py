"""Vendors whose local servers take a whole answer and stream it themselves: Anthropic, Bedrock, Gemini, Ollama."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway_said import SIGNATURE, Called, Counted, Heard, Said, Vendor, logprob_of, words_of

from support import anthropic_server, bedrock_server, gemini_server, ollama_server
from support.anthropic_server import AnthropicServer
from support.bedrock_server import BedrockServer
from support.gemini_server import GeminiServer
from support.ollama_server import OllamaServer


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
            one_call=bool(choice.get("disable_parallel_tool_use")),
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
            chosen = [{"token": word, "logProbability": -0.5} for word in words_of(said.text)]
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
        logprobs = [logprob_of(word) for word in words_of(said.text)] if said.logprobs else None
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
