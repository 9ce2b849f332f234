"""The Bedrock Converse wire format: a call becomes a request body. Pure functions.

Source: Amazon Bedrock API reference, "Converse" and "ConverseStream" (service model 2023-09-30, as of 2026-08),
and the model parameter pages of the user guide for what goes into `additionalModelRequestFields`.

Bedrock carries models of many vendors; what differs is chosen by the model's family, which its id names. An
ARN of an inference profile or an imported model does not: then the provider's option `family` says it.
What Converse cannot say (a URL of an image, the choice `none` among used tools) is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from mainstay.models.providers.gemini_signatures import is_geminis
from mainstay.models.providers.translation import (
    Block,
    arguments_object,
    conversation,
    inline_data,
    own_extra,
    refused,
)
from mainstay.models.types import CacheMark, ChatCall, ChatMessage, MediaPart, Part, TextPart, Thinking, Tool

THINKING_TOKENS_MIN: Final = 1024
_THINKING_ROOM_TOKENS: Final = 4096
"""Output left beside a thinking budget, when the call sets no limit."""

_OWN: Final = frozenset(
    {
        "additionalModelRequestFields",
        "guardrailConfig",
        "promptVariables",
        "requestMetadata",
    }
)
"""Fields of Converse that have no normal form; a client may send them beside its own format's. Those that change
the price (`serviceTier`, `performanceConfig`) are not among them: the price we hold would be wrong."""

_FAMILIES: Final = ("anthropic", "nova", "mistral", "cohere", "openai")
_EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    **{word: word for word in ("low", "medium", "high", "xhigh", "max")},
}
_IMAGES: Final = {f"image/{kind}": kind for kind in ("png", "jpeg", "gif", "webp")}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_SOUNDS: Final = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    **{f"audio/{kind}": kind for kind in ("opus", "wav", "aac", "flac", "ogg", "webm", "mp4")},
}
_FORMATS: Final[Mapping[str, Mapping[str, str]]] = {"image": _IMAGES, "file": _DOCUMENTS, "audio": _SOUNDS}
_METADATA_VALUE: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}")


def encode(
    call: ChatCall,
    provider: str,
    *,
    family: str | None = None,
    beta: tuple[str, ...] = (),
    guardrail: Mapping[str, str] | None = None,
) -> bytes:
    """The body of Converse and ConverseStream alike. Raises ProviderBadRequest naming what cannot be said in it.

    `beta`: Anthropic's beta features, for models of that family. `guardrail`: the operator's, which a call may
    not replace by its own.
    """
    body = _Request(call, provider, family or family_of(call.model), beta).body()
    if guardrail is not None:
        if "guardrailConfig" in body:
            raise refused(provider, "guardrailConfig", "has a guardrail that its operator chose")
        body["guardrailConfig"] = guardrail
    return orjson.dumps(body)


def family_of(model: str) -> str | None:
    """The vendor whose parameters a model takes, from its id or ARN; None when that does not say."""
    words = set(re.split(r"[^a-z0-9]+", model.lower()))
    if "claude" in words:
        return "anthropic"
    return next((family for family in _FAMILIES if family in words), None)


class _Request:
    """One request being written."""

    def __init__(self, call: ChatCall, provider: str, family: str | None, beta: tuple[str, ...]) -> None:
        self._call = call
        self._provider = provider
        self._family = family
        self._beta = beta
        self._documents: set[str] = set()

    def body(self) -> dict[str, Any]:
        body = own_extra(self._call, self._provider, None, _OWN)
        system, turns = conversation(self._provider, self._call.messages, self._turn)
        body["messages"] = turns
        for name, value in (
            ("system", system),
            ("inferenceConfig", self._inference()),
            ("toolConfig", self._tools(turns)),
            ("outputConfig", self._output()),
        ):
            if value:
                body[name] = value
        for name, more in (
            ("additionalModelRequestFields", self._additional()),
            ("requestMetadata", self._metadata()),
        ):
            if more:
                body[name] = {**body.get(name, {}), **more}
        return body

    def _inference(self) -> dict[str, Any]:
        call = self._call
        if call.temperature is not None and not 0 <= call.temperature <= 1:
            raise self._refused("temperature", f"takes 0 to 1, not {call.temperature:g}")
        budget = self._budget()
        limit = call.max_tokens or (budget + _THINKING_ROOM_TOKENS if budget else None)
        if budget and limit is not None and budget >= limit:
            raise self._refused(
                "reasoning",
                f"counts thinking as output: a budget of {budget} tokens must be below max_tokens ({limit})",
                "Lower the thinking budget or raise max_tokens.",
            )
        settings = {
            "maxTokens": limit,
            "temperature": call.temperature,
            "topP": call.top_p,
            "stopSequences": list(call.stop) or None,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _tools(self, turns: list[Block]) -> dict[str, Any]:
        call, choice = self._call, self._call.tool_choice
        if call.parallel_tool_calls is False and call.tools:
            raise self._refused("parallel_tool_calls", "cannot forbid parallel tool calls")
        if choice is not None and choice.mode == "none":
            if any("toolUse" in block for turn in turns for block in turn["content"]):
                raise self._refused(
                    "tool_choice", "has no way to forbid tools in a conversation that used them", "Use auto."
                )
            return {}  # tools that may not be called are as good as not there
        config: dict[str, Any] = {"tools": [entry for tool in call.tools for entry in _tool(tool)]}
        if choice is not None and choice.mode == "tool":
            config["toolChoice"] = {"tool": {"name": choice.name}}
        elif choice is not None:
            config["toolChoice"] = {"any": {}} if choice.mode == "required" else {"auto": {}}
        return config if call.tools else {}

    def _output(self) -> dict[str, Any]:
        output: dict[str, Any] = {}
        effort = self._effort()
        if effort is not None and self._family not in ("nova", "openai"):
            output["effort"] = effort
        wanted = self._call.response_format
        if wanted is None:
            return output
        if wanted.schema is None:
            raise self._refused("response_format", "answers in JSON by a schema only", "Send a json_schema.")
        schema = {"schema": orjson.dumps(wanted.schema).decode(), "name": wanted.name}
        if wanted.description:
            schema["description"] = wanted.description
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        return output

    def _additional(self) -> dict[str, Any]:
        fields = {**self._top_k(), **self._thinking()}
        if self._beta and self._family == "anthropic":
            fields["anthropic_beta"] = list(self._beta)
        return fields

    def _top_k(self) -> dict[str, Any]:
        top_k = self._call.top_k
        if top_k is None:
            return {}
        if self._family == "nova":
            return {"inferenceConfig": {"topK": top_k}}
        if self._family in ("anthropic", "mistral"):
            return {"top_k": top_k}
        if self._family == "cohere":
            return {"k": top_k}
        raise self._unknown_family("top_k")

    def _thinking(self) -> dict[str, Any]:
        reasoning, budget, effort = self._call.reasoning, self._budget(), self._effort()
        off = reasoning is not None and (reasoning.budget_tokens == 0 or reasoning.effort == "none")
        if self._family == "anthropic":
            if off:
                return {"thinking": {"type": "disabled"}}
            if budget:
                return {"thinking": {"type": "enabled", "budget_tokens": budget}}
            return {"thinking": {"type": "adaptive"}} if effort else {}
        if budget:
            raise self._unknown_family("reasoning")
        if self._family == "nova" and (off or effort):
            level = {} if off else {"maxReasoningEffort": effort}
            return {"reasoningConfig": {"type": "disabled" if off else "enabled", **level}}
        if reasoning is not None and reasoning.effort == "none":
            raise self._unknown_family("reasoning_effort")
        return {"reasoning_effort": effort} if effort and self._family == "openai" else {}

    def _budget(self) -> int | None:
        budget = self._call.reasoning.budget_tokens if self._call.reasoning is not None else None
        if budget and budget < THINKING_TOKENS_MIN:
            raise self._refused(
                "reasoning", f"thinks with {THINKING_TOKENS_MIN} tokens or more, not {budget}"
            )
        return budget

    def _effort(self) -> str | None:
        effort = self._call.reasoning.effort if self._call.reasoning is not None else None
        if effort is None or effort == "none":
            return None
        if effort not in _EFFORTS:
            raise self._refused("reasoning_effort", f"knows {', '.join(_EFFORTS)}, not {effort!r}")
        return _EFFORTS[effort]

    def _metadata(self) -> dict[str, str]:
        user = self._call.user
        if not user:
            return {}
        if not _METADATA_VALUE.fullmatch(user):
            raise self._refused("user", "takes at most 256 letters, digits, spaces and : _ @ $ # = / + , - .")
        return {"user": user}

    def _turn(self, message: ChatMessage, where: str) -> tuple[str, list[Block]]:
        if message.role == "tool":
            return "user", [*self._tool_result(message, where), *_cache_point(message.cache)]
        if message.role == "assistant":
            return "assistant", [*self._assistant(message, where), *_cache_point(message.cache)]
        blocks = [*self._blocks(message, where), *_cache_point(message.cache)]
        if message.role == "user":
            return "user", blocks
        if any("text" not in block and "cachePoint" not in block for block in blocks):
            raise self._refused(f"{where}.content", "takes text only in a system message")
        return "system", blocks

    def _assistant(self, message: ChatMessage, where: str) -> Iterator[Block]:
        for thought in message.thinking:
            block = _reasoning_block(thought)
            if block is not None:
                yield {"reasoningContent": block}
        yield from self._blocks(message, where)
        for index, call in enumerate(message.tool_calls):
            field = f"{where}.tool_calls[{index}].function.arguments"
            arguments = arguments_object(self._provider, field, call)
            yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}}

    def _tool_result(self, message: ChatMessage, where: str) -> Iterator[Block]:
        if message.tool_call_id is None:
            raise self._refused(f"{where}.tool_call_id", "must be told which call a result answers")
        blocks = list(self._blocks(message, where))
        content = [block for block in blocks if "cachePoint" not in block]
        result: Block = {"toolUseId": message.tool_call_id, "content": content}
        if message.is_error:
            result["status"] = "error"
        yield {"toolResult": result}
        yield from (block for block in blocks if "cachePoint" in block)

    def _blocks(self, message: ChatMessage, where: str) -> Iterator[Block]:
        parts: tuple[Part, ...] = message.parts or (TextPart(message.content),)
        for index, part in enumerate(parts):
            if isinstance(part, MediaPart):
                yield self._media(part, f"{where}.content[{index}]")
            elif part.text:
                yield {"text": part.text}
            yield from _cache_point(part.cache)

    def _media(self, part: MediaPart, where: str) -> Block:
        if part.detail == "low":
            raise self._refused(f"{where}.detail", "sees every image in full detail", "Send a smaller image.")
        media_type, source = self._source(part, where)
        formats = _FORMATS[part.kind]
        if media_type not in formats:
            raise self._refused(where, f"takes {', '.join(formats)}, not {media_type or 'an unnamed type'}")
        block: Block = {"format": formats[media_type], "source": source}
        if part.kind == "file":
            return {"document": block | {"name": self._document_name(part.name)}}
        return {part.kind: block}

    def _source(self, part: MediaPart, where: str) -> tuple[str, Block]:
        """(media type, source)"""
        inline = inline_data(part)
        if inline is not None:
            return inline[0] or "", {"bytes": inline[1]}
        if part.url is not None and part.url.startswith("s3://"):
            return part.media_type or "", {"s3Location": {"uri": part.url}}
        raise self._refused(where, "takes data or an s3:// address", "Send the content as base64.")

    def _document_name(self, name: str | None) -> str:
        """Of the few characters that Converse allows, and no other document's."""
        stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name or "document")
        plain = " ".join(re.sub(r"[^a-zA-Z0-9\s()\[\]-]", "-", stem).split())[:190] or "document"
        unique, number = plain, 1
        while unique in self._documents:
            number += 1
            unique = f"{plain} ({number})"
        self._documents.add(unique)
        return unique

    def _unknown_family(self, field: str) -> Exception:
        return self._refused(
            field,
            f"does not say how the model {self._call.model!r} takes it",
            f"Set the provider's option `family` to one of {', '.join(_FAMILIES)}, or leave it out.",
        )

    def _refused(self, field: str, why: str, fix: str | None = None) -> Exception:
        return refused(self._provider, field, why, fix)


def _reasoning_block(thought: Thinking) -> Block | None:
    """None for thinking that was not this model's: it has no signature, another vendor's, or an id."""
    if thought.id is not None or is_geminis(thought):
        return None
    if thought.encrypted is not None:
        return {"redactedContent": thought.encrypted}
    if thought.signature is None:
        return None
    return {"reasoningText": {"text": thought.text, "signature": thought.signature}}


def _tool(tool: Tool) -> Iterator[Block]:
    spec: dict[str, Any] = {
        "name": tool.name,
        "inputSchema": {"json": tool.parameters or {"type": "object", "properties": {}}},
    }
    if tool.description:
        spec["description"] = tool.description
    if tool.strict is not None:
        spec["strict"] = tool.strict
    yield {"toolSpec": spec}
    yield from _cache_point(tool.cache)


def _cache_point(mark: CacheMark | None) -> Iterator[Block]:
    if mark is not None:
        ttl = {"ttl": mark.ttl} if mark.ttl != "5m" else {}
        yield {"cachePoint": {"type": "default", **ttl}}
