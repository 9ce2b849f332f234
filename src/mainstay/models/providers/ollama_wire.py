"""Ollama's native wire format: a call becomes a request body. Pure functions.

Source: Ollama API, `/api/chat`, `/api/embed` and "Thinking", with `api/types.go` for `truncate` and `shift`, as of
2026-11.

What has no exact counterpart there, and what is done:

- Ollama cuts a conversation that is too long for `num_ctx` without a word. `truncate` and `shift` are sent as false,
  so that it refuses instead (from 0.12.6 on; older servers know neither).
- A message is one text with its images beside it: texts are joined, and where the images stood is lost.
- Tools are offered or not: `none` leaves them out; a choice that forces a call is refused, as is `strict`.
- Thinking is on, off, or one of three levels: `minimal` is `low`; a budget of tokens is refused.
- The result of a tool that failed begins with `Error:`, as the format has no field for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mainstay.models.providers.translation import arguments_object, inline_data, own_extra, refused
from mainstay.models.types import ChatCall, ChatMessage, MediaPart, Reasoning, TextPart, Tool

_LEVELS: Final[Mapping[str, str]] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
_OPTIONS: Final = frozenset(
    {
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "num_ctx",
        "num_keep",
        "repeat_last_n",
        "repeat_penalty",
        "tfs_z",
        "typical_p",
    }
)
"""Fields of a request that are Ollama's own `options`."""

_RENAMED: Final[Mapping[str, str]] = {"repetition_penalty": "repeat_penalty"}
"""What other servers call them."""

_OWN_FIELDS: Final = _OPTIONS | _RENAMED.keys() | {"keep_alive"}


def encode(
    call: ChatCall,
    provider: str,
    *,
    stream: bool,
    context_tokens: int | None = None,
    keep_alive: str | None = None,
) -> bytes:
    """The body of `/api/chat`; `extra` of the call goes before what is set for the provider.

    Raises ProviderBadRequest naming what cannot be said in it.
    """
    own = {
        _RENAMED.get(name, name): value
        for name, value in own_extra(call, provider, None, _OWN_FIELDS).items()
    }
    kept = own.pop("keep_alive", keep_alive)
    options = {**({} if context_tokens is None else {"num_ctx": context_tokens}), **_sampling(call), **own}
    body: dict[str, Any] = {
        "model": call.model,
        "messages": _Messages(call, provider).written(),
        "stream": stream,
        "truncate": False,
        "shift": False,
        **_shape(call, provider),
    }
    if options:
        body["options"] = options
    if kept is not None:
        body["keep_alive"] = duration(kept)
    return orjson.dumps(body)


def encode_embeddings(
    model: str, texts: tuple[str, ...], dimensions: int | None, keep_alive: str | None
) -> bytes:
    """The body of `/api/embed`. A text that is too long is refused there, not cut."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "truncate": False}
    if dimensions is not None:
        body["dimensions"] = dimensions
    if keep_alive is not None:
        body["keep_alive"] = duration(keep_alive)
    return orjson.dumps(body)


def duration(keep_alive: object) -> object:
    """Seconds as a number (`-1`: for ever, `0`: unload at once), other durations as text: `5m`."""
    if isinstance(keep_alive, str) and keep_alive.removeprefix("-").isdigit():
        return int(keep_alive)
    return keep_alive


def _sampling(call: ChatCall) -> dict[str, Any]:
    settings = {
        "num_predict": call.max_tokens,
        "temperature": call.temperature,
        "top_k": call.top_k,
        "top_p": call.top_p,
        "seed": call.seed,
        "stop": list(call.stop) or None,
        "presence_penalty": call.presence_penalty,
        "frequency_penalty": call.frequency_penalty,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _shape(call: ChatCall, provider: str) -> dict[str, Any]:
    """What of a request is neither messages nor options."""
    shape: dict[str, Any] = {}
    if call.n > 1:
        raise refused(provider, "n", "gives one answer a call")
    if call.logit_bias:
        raise refused(provider, "logit_bias", "has no such field", "Leave logit_bias out.")
    if call.logprobs:
        shape["logprobs"] = True
        if call.top_logprobs:
            shape["top_logprobs"] = call.top_logprobs
    if call.response_format is not None:
        shape["format"] = "json" if call.response_format.schema is None else call.response_format.schema
    think = _think(call.reasoning, provider)
    if think is not None:
        shape["think"] = think
    tools = _tools(call, provider)
    if tools:
        shape["tools"] = tools
    return shape


def _think(reasoning: Reasoning | None, provider: str) -> bool | str | None:
    if reasoning is None:
        return None
    if reasoning.budget_tokens == 0 or reasoning.effort == "none":
        return False
    if reasoning.budget_tokens is not None:
        raise refused(
            provider, "reasoning", "bounds thinking by no number of tokens", "Ask for an effort instead."
        )
    if reasoning.effort is None:
        return True if reasoning.summary not in (None, "none") else None
    if reasoning.effort not in _LEVELS:
        known = ", ".join(("none", *_LEVELS))
        raise refused(provider, "reasoning_effort", f"knows {known}, not {reasoning.effort!r}")
    return _LEVELS[reasoning.effort]


def _tools(call: ChatCall, provider: str) -> list[dict[str, Any]]:
    choice = call.tool_choice
    if choice is not None and choice.mode in ("required", "tool"):
        raise refused(provider, "tool_choice", "cannot be made to call a tool", "Ask for auto.")
    if call.tools and call.parallel_tool_calls is False:
        raise refused(provider, "parallel_tool_calls", "cannot be held to one call at a time")
    for index, tool in enumerate(call.tools):
        if tool.strict:
            raise refused(
                provider,
                f"tools[{index}].function.strict",
                "does not hold arguments to their schema",
                "Leave strict out and check the arguments.",
            )
    return [] if choice is not None and choice.mode == "none" else [_tool(tool) for tool in call.tools]


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


class _Messages:
    """A conversation being written; holds what every refusal needs."""

    def __init__(self, call: ChatCall, provider: str) -> None:
        self._call = call
        self._provider = provider
        self._names = {made.id: made.name for message in call.messages for made in message.tool_calls}

    def written(self) -> list[dict[str, Any]]:
        return [self._message(message, f"messages[{at}]") for at, message in enumerate(self._call.messages)]

    def _message(self, message: ChatMessage, where: str) -> dict[str, Any]:
        if message.name is not None and message.role != "tool":
            raise refused(
                self._provider, f"{where}.name", "has no names of speakers", "Say the name in the text."
            )
        role = "system" if message.role == "developer" else message.role
        written: dict[str, Any] = {"role": role, "content": _text(message)}
        images = [
            self._image(part, f"{where}.content[{at}]")
            for at, part in enumerate(message.parts)
            if isinstance(part, MediaPart)
        ]
        if images:
            written["images"] = images
        if role == "tool":
            written |= self._answered(message)
        if role == "assistant":
            written |= self._said(message, where)
        return written

    def _answered(self, message: ChatMessage) -> dict[str, Any]:
        name = self._names.get(message.tool_call_id or "") or message.name
        told = {"tool_name": name, "tool_call_id": message.tool_call_id}
        return {field: value for field, value in told.items() if value is not None}

    def _said(self, message: ChatMessage, where: str) -> dict[str, Any]:
        said: dict[str, Any] = {}
        thinking = "".join(block.text for block in message.thinking if block.signature is None)
        if thinking:
            said["thinking"] = thinking
        calls = []
        for index, made in enumerate(message.tool_calls):
            field = f"{where}.tool_calls[{index}].function.arguments"
            arguments = arguments_object(self._provider, field, made)
            calls.append({"id": made.id, "function": {"name": made.name, "arguments": arguments}})
        if calls:
            said["tool_calls"] = calls
        return said

    def _image(self, part: MediaPart, where: str) -> str:
        if part.kind != "image":
            raise refused(self._provider, where, "takes texts and images only")
        inline = inline_data(part)
        if inline is None:
            raise refused(
                self._provider,
                where,
                "fetches no images",
                "Send the image itself: a data: URL, or base64.",
            )
        if part.detail == "low":
            raise refused(
                self._provider,
                f"{where}.detail",
                "sees every image as its model does",
                "Send a smaller image.",
            )
        return inline[1]


def _text(message: ChatMessage) -> str:
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    text = "\n".join(texts) if message.parts else message.content
    return f"Error: {text}" if message.role == "tool" and message.is_error else text
