"""The Gemini wire format: a call becomes a request body. Pure functions.

Source: Gemini API reference (v1beta), "Generating content", "Caching" (tools and contents), "Embeddings" and
"Counting tokens", with the guides on thinking, thought signatures, structured output, function calling and
OpenAI compatibility; Vertex AI, "Generate content with the Gemini API"; all as of 2026-11.

What has no exact counterpart there, and what is done:

- System and developer messages that open the conversation become `systemInstruction`; elsewhere they are refused.
- The results of a turn's calls stand in one content of their own, so that a user's words after them begin a turn.
- An effort word is a `thinkingLevel`, and for models before Gemini 3, which know budgets only, the budget that
  Google's OpenAI-compatible endpoint makes of it. Thoughts are shown when a summary or a budget was asked for.
- `responseJsonSchema` knows a part of JSON Schema and ignores the rest: a keyword that would be ignored is refused.
- A strict tool makes mode VALIDATED of AUTO, which holds all tools to their schemas.
- Marks for a prompt cache are left out: caching is implicit. A file's name is sent to Vertex AI only.
- What a block of thinking vouches for is in its signature (see `gemini_signatures`).
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from mainstay.models.providers.gemini_schema import unknown_keyword
from mainstay.models.providers.gemini_signatures import UNVOUCHED, Signatures
from mainstay.models.providers.translation import (
    Block,
    arguments_object,
    conversation,
    inline_data,
    own_extra,
    refused,
)
from mainstay.models.types import (
    ChatCall,
    ChatMessage,
    MediaPart,
    Part,
    Reasoning,
    TextPart,
    Tool,
    ToolChoice,
)

STOPS_MAX: Final = 5
TOP_LOGPROBS_MAX: Final = 20
EMBEDDINGS_MAX: Final = 100
"""Texts in one `batchEmbedContents`."""

_LEVELS: Final = frozenset({"minimal", "low", "medium", "high"})
_BUDGETS: Final[Mapping[str, int]] = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
_BY_BUDGET: Final = re.compile(r"gemini-(1|2)\b.*")
_OWN_FIELDS: Final = frozenset({"safetySettings", "cachedContent", "labels"})
_FILES: Final = "https://generativelanguage.googleapis.com/v1beta/"


def encode(call: ChatCall, provider: str, *, vertex: bool = False) -> bytes:
    """The body of `generateContent`. Raises ProviderBadRequest naming what cannot be said in it."""
    return orjson.dumps(_Request(call, provider, vertex).body())


def encode_count(call: ChatCall, provider: str, *, vertex: bool = False) -> bytes:
    """The body of `countTokens`: the whole request, as it would be billed."""
    body = _Request(call, provider, vertex).body()
    if vertex:
        counted = ("contents", "systemInstruction", "tools")
        return orjson.dumps({name: body[name] for name in counted if name in body})
    return orjson.dumps({"generateContentRequest": {"model": resource(call.model), **body}})


def encode_embeddings(model: str, texts: Sequence[str], dimensions: int | None) -> bytes:
    """The body of `batchEmbedContents` for at most EMBEDDINGS_MAX texts."""
    size = {} if dimensions is None else {"outputDimensionality": dimensions}
    requests = [{"model": resource(model), "content": {"parts": [{"text": t}]}, **size} for t in texts]
    return orjson.dumps({"requests": requests})


def resource(model: str) -> str:
    """A model's name as its path says it: `models/…` unless it is already one."""
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


class _Request:
    """One request being written; holds what every refusal needs."""

    def __init__(self, call: ChatCall, provider: str, vertex: bool) -> None:
        self._call = call
        self._provider = provider
        self._vertex = vertex
        self._names = {made.id: made.name for message in call.messages for made in message.tool_calls}
        self._spoken = False

    def body(self) -> dict[str, Any]:
        system, turns = conversation(self._provider, self._call.messages, self._turn)
        body = own_extra(self._call, self._provider, None, _OWN_FIELDS)
        body["contents"] = [_content(turn) for turn in turns]
        if system:
            body["systemInstruction"] = {"parts": system}
        if self._call.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in self._call.tools]}]
            body["toolConfig"] = {"functionCallingConfig": self._calling()}
        config = self._generation()
        if config:
            body["generationConfig"] = config
        return body

    # --- settings -------------------------------------------------------------------------------------------

    def _generation(self) -> dict[str, Any]:
        call = self._call
        settings = {
            "maxOutputTokens": call.max_tokens,
            "temperature": call.temperature,
            "topP": call.top_p,
            "topK": call.top_k,
            "stopSequences": self._stops(),
            "seed": call.seed,
            "presencePenalty": call.presence_penalty,
            "frequencyPenalty": call.frequency_penalty,
            "candidateCount": call.n if call.n > 1 else None,
            "thinkingConfig": self._thinking(call.reasoning),
            "mediaResolution": self._resolution(),
            **self._format(),
            **self._logprobs(),
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _stops(self) -> list[str] | None:
        if len(self._call.stop) > STOPS_MAX:
            raise self._refused("stop", f"takes {STOPS_MAX} stop sequences, not {len(self._call.stop)}")
        return list(self._call.stop) or None

    def _logprobs(self) -> dict[str, Any]:
        call = self._call
        if call.logit_bias:
            raise self._refused("logit_bias", "has no such field", "Leave logit_bias out.")
        if not call.logprobs:
            return {}
        top = call.top_logprobs or 0
        if top > TOP_LOGPROBS_MAX:
            raise self._refused("top_logprobs", f"gives up to {TOP_LOGPROBS_MAX}, not {top}")
        return {"responseLogprobs": True, **({"logprobs": top} if top else {})}

    def _format(self) -> dict[str, Any]:
        wanted = self._call.response_format
        if wanted is None:
            return {}
        if wanted.schema is None:
            return {"responseMimeType": "application/json"}
        unknown = unknown_keyword(wanted.schema)
        if unknown is not None:
            path, keyword = unknown
            raise self._refused(
                f"response_format{path}",
                f"ignores the keyword {keyword!r} of JSON Schema",
                f"Leave {keyword} out of the schema, or use a model that keeps to it.",
            )
        schema = wanted.schema
        if wanted.description and "description" not in schema:
            schema = {**schema, "description": wanted.description}
        return {"responseMimeType": "application/json", "responseJsonSchema": schema}

    def _thinking(self, reasoning: Reasoning | None) -> dict[str, Any] | None:
        if reasoning is None:
            return None
        config: dict[str, Any] = {}
        if reasoning.summary not in (None, "none") or (reasoning.budget_tokens and not reasoning.summary):
            config["includeThoughts"] = True
        if reasoning.budget_tokens is not None or reasoning.effort == "none":
            return {**config, "thinkingBudget": reasoning.budget_tokens or 0}
        if reasoning.effort is None:
            return config or None
        if reasoning.effort not in _LEVELS:
            known = ", ".join(("none", *_BUDGETS))
            raise self._refused("reasoning_effort", f"knows {known}, not {reasoning.effort!r}")
        if _BY_BUDGET.fullmatch(self._model):
            return {**config, "thinkingBudget": _BUDGETS[reasoning.effort]}
        return {**config, "thinkingLevel": reasoning.effort.upper()}

    def _resolution(self) -> str | None:
        """Images are seen in one resolution per request."""
        details = {
            part.detail
            for message in self._call.messages
            for part in message.parts
            if isinstance(part, MediaPart) and part.kind == "image"
        }
        if "low" not in details:
            return None
        if len(details) > 1:
            raise self._refused(
                "messages", "sees all images in one resolution", "Ask for detail low for all or for none."
            )
        return "MEDIA_RESOLUTION_LOW"

    def _calling(self) -> dict[str, Any]:
        if self._call.parallel_tool_calls is False:
            raise self._refused("parallel_tool_calls", "cannot be held to one call at a time")
        choice = self._call.tool_choice or ToolChoice("auto")
        if choice.mode == "tool":
            return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
        if choice.mode == "auto" and any(tool.strict for tool in self._call.tools):
            return {"mode": "VALIDATED"}
        return {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]}

    # --- contents -------------------------------------------------------------------------------------------

    def _turn(self, message: ChatMessage, where: str) -> tuple[str, list[Block]]:
        """(role, parts); role `tool` stays apart from `user` until all turns are told apart."""
        if message.role in ("system", "developer"):
            if self._spoken:
                raise self._refused(
                    where,
                    "takes system messages at the start of a conversation only",
                    "Move it to the start.",
                )
            return "system", list(self._parts(message, where))
        self._spoken = True
        if message.role == "tool":
            return "tool", [self._result(message, where)]
        if message.role == "assistant":
            return "model", self._answer(message, where)
        return "user", list(self._parts(message, where))

    def _answer(self, message: ChatMessage, where: str) -> list[Block]:
        signed = Signatures(message.thinking)
        parts = [*signed.thoughts(), *self._parts(message, where)]
        spoken = [part for part in parts if "text" in part and "thought" not in part]
        if signed.text is not None and spoken:
            spoken[-1]["thoughtSignature"] = signed.text
        elif signed.end or signed.text:
            parts.append({"text": "", "thoughtSignature": signed.end or signed.text})
        for index, made in enumerate(message.tool_calls):
            field = f"{where}.tool_calls[{index}].function.arguments"
            part: Block = {"functionCall": {"name": made.name, **self._id(made.id)}}
            part["functionCall"]["args"] = arguments_object(self._provider, field, made)
            signature = signed.calls.get(made.id)
            if signature is None and index == 0 and not _BY_BUDGET.fullmatch(self._model):
                signature = UNVOUCHED
            if signature is not None:
                part["thoughtSignature"] = signature
            parts.append(part)
        return parts

    def _result(self, message: ChatMessage, where: str) -> Block:
        name = self._names.get(message.tool_call_id or "") or message.name
        if name is None:
            raise self._refused(
                f"{where}.tool_call_id",
                "needs the name of the tool, and no call before has this id",
                "Send the assistant's message with its tool_calls, or name the tool.",
            )
        media = [part for part in message.parts if isinstance(part, MediaPart)]
        response = {"error" if message.is_error else "output": message.content}
        result: Block = {"name": name, **self._id(message.tool_call_id), "response": response}
        if media:
            result["parts"] = [self._media(part, f"{where}.content") for part in media]
        return {"functionResponse": result}

    def _id(self, call_id: str | None) -> dict[str, str]:
        """Vertex AI goes by names and order."""
        return {} if self._vertex or not call_id else {"id": call_id}

    def _parts(self, message: ChatMessage, where: str) -> Iterator[Block]:
        parts: Sequence[Part] = message.parts or (TextPart(message.content),)
        for index, part in enumerate(parts):
            if isinstance(part, MediaPart):
                yield self._media(part, f"{where}.content[{index}]")
            elif part.text:
                yield {"text": part.text}

    def _media(self, part: MediaPart, where: str) -> Block:
        name = {"displayName": part.name} if part.name and self._vertex else {}
        inline = inline_data(part)
        if inline is None:
            return {"fileData": {**self._reference(part, where), **name}}
        media_type, data = inline
        if media_type is None:
            raise self._refused(where, "needs the media type of what is sent inline")
        return {"inlineData": {"mimeType": media_type, "data": data, **name}}

    def _reference(self, part: MediaPart, where: str) -> Block:
        uri = part.url or part.file_id
        if part.file_id is not None and part.file_id.startswith("files/"):
            uri = f"{_FILES}{part.file_id}"
        if uri is None or not urlsplit(uri).scheme:
            raise self._refused(where, "needs data, a URL, or a file of its own, `files/…`")
        media_type = part.media_type or mimetypes.guess_type(urlsplit(uri).path)[0]
        if media_type is None and self._vertex:
            raise self._refused(where, "needs the media type of a file, and its URL does not tell it")
        return {"fileUri": uri, **({} if media_type is None else {"mimeType": media_type})}

    @property
    def _model(self) -> str:
        return self._call.model.rpartition("/")[2]

    def _refused(self, field: str, why: str, fix: str | None = None) -> Exception:
        return refused(self._provider, field, why, fix)


def _content(turn: Block) -> Block:
    return {"role": "user" if turn["role"] == "tool" else turn["role"], "parts": turn["content"]}


def _declaration(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.parameters:
        written["parametersJsonSchema"] = tool.parameters
    return written
