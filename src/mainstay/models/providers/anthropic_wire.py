"""The Anthropic Messages wire format: a call becomes a request body. Pure functions.

Source: Claude API reference, "Messages" (`anthropic-version: 2023-06-01`), with the guides on structured
outputs, thinking, effort, prompt caching and mid-conversation system messages, as of 2026-11.

What has no exact counterpart there, and what is done:

- System and developer messages that open the conversation become `system`; one after a user's turn stays
  where it is, as `role: system` (models that lack it answer 400); anywhere else it is refused.
- Adjacent messages of one role are joined into one turn, because all results of a turn's tool calls must
  be in the one user turn that follows it.
- `max_tokens` is required: a call without one gets MAX_TOKENS_DEFAULT, on top of its thinking budget.
- An effort word goes to `output_config.effort` with adaptive thinking; `minimal` is `low`, the least it has,
  and `none` switches thinking off. A budget is manual thinking of that many tokens.
- Thinking without a signature was not Claude's (nor were blocks with an id or Gemini's signature): it cannot
  be handed back and is left out; the API itself lets earlier thinking be omitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from mainstay.models.providers.gemini_signatures import is_geminis
from mainstay.models.providers.translation import (
    Block,
    arguments_object,
    conversation,
    decoded_text,
    inline_data,
    own_extra,
    refused,
)
from mainstay.models.types import (
    CacheMark,
    ChatCall,
    ChatMessage,
    MediaPart,
    Part,
    Reasoning,
    ResponseFormat,
    TextPart,
    Thinking,
    Tool,
    WireFormat,
)

FORMAT: Final[WireFormat] = "anthropic.messages"
MAX_TOKENS_DEFAULT: Final = 4096
THINKING_TOKENS_MIN: Final = 1024

_EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    **{word: word for word in ("low", "medium", "high", "xhigh", "max")},
}
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "required": "any", "none": "none", "tool": "tool"}
_IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_COUNTED: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"}
)
"""What `/v1/messages/count_tokens` takes."""


def encode(call: ChatCall, provider: str, *, stream: bool) -> bytes:
    """The body of `POST /v1/messages`. Raises ProviderBadRequest naming what cannot be said in it."""
    return orjson.dumps(_body(call, provider, stream))


def encode_count(call: ChatCall, provider: str) -> bytes:
    """The body of `POST /v1/messages/count_tokens`."""
    body = _body(replace(call, extra=_without_paths(call.extra)), provider, stream=False)
    return orjson.dumps({name: value for name, value in body.items() if name in _COUNTED})


def _body(call: ChatCall, provider: str, stream: bool) -> dict[str, Any]:
    foreign = any(is_geminis(thought) for message in call.messages for thought in message.thinking)
    if call.source is not None and call.source_format == FORMAT and not foreign:
        limit = call.max_tokens or call.source.get("max_tokens") or MAX_TOKENS_DEFAULT
        return {**call.source, "model": call.model, "max_tokens": limit, "stream": stream}
    return _Request(call, provider).body(stream)


class _Request:
    """One request being written; holds what every refusal needs."""

    def __init__(self, call: ChatCall, provider: str) -> None:
        self._call = call
        self._provider = provider

    def body(self, stream: bool) -> dict[str, Any]:
        call = self._call
        system, turns = conversation(self._provider, call.messages, self._turn)
        body = self._own_fields()
        body |= {"model": call.model, "messages": turns, "stream": stream, **self._limits()}
        optional = {
            "system": system,
            "stop_sequences": list(call.stop),
            "temperature": self._temperature(),
            "top_p": call.top_p,
            "top_k": call.top_k,
            "tools": [_tool(tool) for tool in call.tools],
            "tool_choice": self._tool_choice(),
        }
        body |= {name: value for name, value in optional.items() if value is not None and value != []}
        for name, more in (("output_config", self._output_config()), ("metadata", self._metadata())):
            if more:
                body[name] = {**body.get(name, {}), **more}
        return body

    def _own_fields(self) -> dict[str, Any]:
        """What of `extra` stands at the top of a body. A path names a place in a conversation that is written anew."""
        extra = own_extra(self._call, self._provider, FORMAT)
        for name in extra.keys() - _without_paths(extra).keys():
            raise self._refused(
                name, "cannot keep this in a request that was changed on its way", f"Leave {name} out."
            )
        return extra

    def _limits(self) -> dict[str, Any]:
        """`max_tokens` and `thinking`, which must fit each other."""
        reasoning = self._call.reasoning
        budget = reasoning.budget_tokens if reasoning is not None else None
        limit = self._call.max_tokens or MAX_TOKENS_DEFAULT + (budget or 0)
        if budget and budget < THINKING_TOKENS_MIN:
            raise self._refused(
                "reasoning", f"thinks with {THINKING_TOKENS_MIN} tokens or more, not {budget}"
            )
        if budget and budget >= limit:
            raise self._refused(
                "reasoning",
                f"counts thinking as output: a budget of {budget} tokens must be below max_tokens ({limit})",
                "Lower the thinking budget or raise max_tokens.",
            )
        thinking = _thinking_config(reasoning)
        return {"max_tokens": limit, **({"thinking": thinking} if thinking else {})}

    def _temperature(self) -> float | None:
        temperature = self._call.temperature
        if temperature is not None and not 0 <= temperature <= 1:
            raise self._refused("temperature", f"takes 0 to 1, not {temperature:g}")
        return temperature

    def _tool_choice(self) -> dict[str, Any] | None:
        choice, serial = self._call.tool_choice, self._call.parallel_tool_calls is False
        if choice is None and not (serial and self._call.tools):
            return None
        mode = _CHOICES[choice.mode] if choice is not None else "auto"
        chosen: dict[str, Any] = {"type": mode}
        if choice is not None and mode == "tool":
            chosen["name"] = choice.name
        if serial and mode != "none":
            chosen["disable_parallel_tool_use"] = True
        return chosen

    def _output_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {}
        reasoning = self._call.reasoning
        if reasoning is not None and reasoning.effort not in (None, "none"):
            if reasoning.effort not in _EFFORTS:
                raise self._refused(
                    "reasoning_effort", f"knows {', '.join(_EFFORTS)}, not {reasoning.effort!r}"
                )
            config["effort"] = _EFFORTS[reasoning.effort]
        if self._call.response_format is not None:
            config["format"] = {"type": "json_schema", "schema": self._schema(self._call.response_format)}
        return config

    def _schema(self, wanted: ResponseFormat) -> Mapping[str, Any]:
        """The schema itself; a description is said where JSON Schema says it. The name is only a label."""
        if wanted.schema is None:
            raise self._refused("response_format", "answers in JSON by a schema only", "Send a json_schema.")
        if wanted.description and "description" not in wanted.schema:
            return {**wanted.schema, "description": wanted.description}
        return wanted.schema

    def _metadata(self) -> dict[str, Any]:
        return {"user_id": self._call.user} if self._call.user else {}

    def _turn(self, message: ChatMessage, where: str) -> tuple[str, list[Block]]:
        if message.role == "tool":
            return "user", [self._tool_result(message, where)]
        if message.role == "assistant":
            return "assistant", _marked(list(self._assistant(message, where)), message.cache)
        blocks = list(self._blocks(message, where))
        if message.role == "user":
            return "user", _marked(blocks, message.cache)
        if any(block["type"] != "text" for block in blocks):
            raise self._refused(f"{where}.content", "takes text only in a system message")
        return "system", _marked(blocks, message.cache)

    def _assistant(self, message: ChatMessage, where: str) -> Iterator[Block]:
        for thought in message.thinking:
            block = _thinking_block(thought)
            if block is not None:
                yield block
        yield from self._blocks(message, where)
        for index, call in enumerate(message.tool_calls):
            field = f"{where}.tool_calls[{index}].function.arguments"
            arguments = arguments_object(self._provider, field, call)
            yield {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}

    def _tool_result(self, message: ChatMessage, where: str) -> Block:
        if message.tool_call_id is None:
            raise self._refused(f"{where}.tool_call_id", "must be told which call a result answers")
        result: Block = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        content = list(self._blocks(message, where))
        if content:
            result["content"] = content
        if message.is_error:
            result["is_error"] = True
        return _marked([result], message.cache)[0]

    def _blocks(self, message: ChatMessage, where: str) -> Iterator[Block]:
        parts: tuple[Part, ...] = message.parts or (TextPart(message.content),)
        for index, part in enumerate(parts):
            if isinstance(part, MediaPart):
                yield _marked([self._media(part, f"{where}.content[{index}]")], part.cache)[0]
            elif part.text:
                yield _marked([{"type": "text", "text": part.text}], part.cache)[0]

    def _media(self, part: MediaPart, where: str) -> Block:
        if part.kind == "image":
            return {"type": "image", "source": self._image(part, where)}
        if part.kind == "file":
            title = {"title": part.name} if part.name else {}
            return {"type": "document", "source": self._document(part, where), **title}
        raise self._refused(where, "takes no audio")

    def _image(self, part: MediaPart, where: str) -> Block:
        if part.detail == "low":
            raise self._refused(f"{where}.detail", "sees every image in full detail", "Send a smaller image.")
        inline = inline_data(part)
        if inline is None:
            return self._reference(part, where)
        media_type, data = inline
        if media_type not in _IMAGE_TYPES:
            raise self._refused(where, f"takes JPEG, PNG, GIF and WebP images, not {media_type}")
        return {"type": "base64", "media_type": media_type, "data": data}

    def _document(self, part: MediaPart, where: str) -> Block:
        inline = inline_data(part)
        if inline is None:
            return self._reference(part, where)
        media_type, data = inline
        if media_type == "application/pdf":
            return {"type": "base64", "media_type": media_type, "data": data}
        if media_type is not None and media_type.startswith("text/"):
            text = decoded_text(self._provider, where, data)
            return {"type": "text", "media_type": "text/plain", "data": text}
        raise self._refused(where, f"takes PDF and text files, not {media_type}")

    def _reference(self, part: MediaPart, where: str) -> Block:
        if part.url is not None:
            return {"type": "url", "url": part.url}
        if part.file_id is not None:
            return {"type": "file", "file_id": part.file_id}
        raise self._refused(where, "needs data, a URL or a file id")

    def _refused(self, field: str, why: str, fix: str | None = None) -> Exception:
        return refused(self._provider, field, why, fix)


def _without_paths(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extra.items() if "[" not in name}


def _thinking_config(reasoning: Reasoning | None) -> dict[str, Any] | None:
    if reasoning is None:
        return None
    shown = (
        {"display": "omitted" if reasoning.summary == "none" else "summarized"} if reasoning.summary else {}
    )
    if reasoning.budget_tokens == 0 or reasoning.effort == "none":
        return {"type": "disabled"}
    if reasoning.budget_tokens:
        return {"type": "enabled", "budget_tokens": reasoning.budget_tokens, **shown}
    return {"type": "adaptive", **shown} if reasoning.effort or shown else None


def _thinking_block(thought: Thinking) -> Block | None:
    if thought.id is not None or is_geminis(thought):
        return None
    if thought.encrypted is not None:
        return {"type": "redacted_thinking", "data": thought.encrypted}
    if thought.signature is None:
        return None
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    written["input_schema"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        written["strict"] = tool.strict
    return _marked([written], tool.cache)[0]


def _marked(blocks: list[Block], mark: CacheMark | None) -> list[Block]:
    """The blocks with a cache breakpoint on the last one. Thinking cannot carry one; it is cached with what follows."""
    if mark is not None and blocks and blocks[-1].get("type") not in ("thinking", "redacted_thinking"):
        ttl = {"ttl": mark.ttl} if mark.ttl != "5m" else {}
        blocks[-1]["cache_control"] = {"type": "ephemeral", **ttl}
    return blocks
