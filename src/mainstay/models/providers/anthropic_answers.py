"""What the Anthropic Messages API answers: events, messages, usage and errors. Pure but for a stream's state.

Source: Claude API reference, "Messages", "Streaming messages", "Stop reasons" and "Errors", as of 2026-11.

`pause_turn` (a long turn of a server's tool was paused; the client may send it back to go on) has no
counterpart elsewhere and is told as `stop`; clients of the same format see it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
)
from mainstay.models.providers.answers import Malformed, count_of, json_object, text_of
from mainstay.models.providers.refusals import kind_of_status, refusal, retry_after_s
from mainstay.models.types import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    Thinking,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicStream:
    """One streamed message: feed it the data of each event, get its delta.

    With `raw`, every event but `ping` has a delta that carries its bytes, so that the stream can be relayed
    as it is; without, events that say nothing in the normal form have none. `finished` after `message_stop`.
    """

    def __init__(self, provider: str, raw: bool) -> None:
        self.finished = False
        self.usage: Usage | None = None
        self._provider = provider
        self._raw = raw
        self._model: str | None = None
        self._counts: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self._tools = 0

    def take(self, data: bytes) -> Delta | None:
        """Raises Malformed, and the ProviderError that an `error` event tells of."""
        event = json_object(data)
        kind = event.get("type")
        if kind == "ping":
            return None
        if kind == "error":
            raise decode_error(self._provider, None, data, {})
        fields = self._fields(str(kind), event)
        if not fields and not self._raw:
            return None
        if fields and self._model is not None:
            fields["model"], self._model = self._model, None
        return Delta(**fields, raw=data if self._raw else None)

    def _fields(self, kind: str, event: Mapping[str, Any]) -> dict[str, Any]:
        if kind == "content_block_delta":
            return self._grow(event)
        if kind == "content_block_start":
            return self._begin(event)
        if kind == "content_block_stop":
            return self._end(event)
        if kind == "message_delta":
            return self._stop(event)
        if kind == "message_start":
            message = _member(event, "message")
            self._model = message.get("model")
            self._count(message)
        self.finished = self.finished or kind == "message_stop"
        return {}

    def _begin(self, event: Mapping[str, Any]) -> dict[str, Any]:
        content = _member(event, "content_block")
        block = self._blocks[_index(event)] = _Block(str(content.get("type")))
        if block.kind == "tool_use":
            block.tool, self._tools = self._tools, self._tools + 1
            piece = ToolCallDelta(block.tool, str(content.get("id")), str(content.get("name")))
            return {"tool_calls": (piece,)}
        if block.kind == "redacted_thinking":
            return {"thinking": Thinking(encrypted=text_of(content, "data"))}
        if block.kind == "thinking":
            block.signature = text_of(content, "signature") or None
            return _nonempty("reasoning", block.grown(text_of(content, "thinking")))
        return _nonempty("text", text_of(content, "text")) if block.kind == "text" else {}

    def _grow(self, event: Mapping[str, Any]) -> dict[str, Any]:
        delta, block = _member(event, "delta"), self._block(event)
        kind = delta.get("type")
        if kind == "text_delta":
            return _nonempty("text", text_of(delta, "text"))
        if kind == "thinking_delta":
            return _nonempty("reasoning", block.grown(text_of(delta, "thinking")))
        if kind == "signature_delta":
            block.signature = text_of(delta, "signature")
        if kind == "input_json_delta" and block.tool is not None:
            piece = block.grown(text_of(delta, "partial_json"))
            return {"tool_calls": (ToolCallDelta(block.tool, arguments=piece),)} if piece else {}
        return {}

    def _end(self, event: Mapping[str, Any]) -> dict[str, Any]:
        block = self._block(event)
        if block.kind == "thinking":
            return {"thinking": Thinking("".join(block.pieces), block.signature)}
        if block.tool is not None and not block.pieces:  # a call without arguments streams none
            return {"tool_calls": (ToolCallDelta(block.tool, arguments="{}"),)}
        return {}

    def _stop(self, event: Mapping[str, Any]) -> dict[str, Any]:
        delta = _member(event, "delta")
        self._count(event)
        fields: dict[str, Any] = {"usage": self.usage} if self.usage is not None else {}
        if delta.get("stop_reason") is not None:
            fields["finish_reason"] = finish_reason(delta["stop_reason"])
            fields["stop_sequence"] = delta.get("stop_sequence")
        return fields

    def _count(self, holder: Mapping[str, Any]) -> None:
        """Counts are running totals: a later one replaces, one left out stays."""
        usage = holder.get("usage")
        if isinstance(usage, dict):
            self._counts |= {name: value for name, value in usage.items() if value is not None}
            self.usage = decode_usage(self._counts)

    def _block(self, event: Mapping[str, Any]) -> _Block:
        try:
            return self._blocks[_index(event)]
        except KeyError:
            raise Malformed("an event of a content block that was not begun") from None


class _Block:
    """A content block that is being streamed. `tool` counts its tool calls from 0."""

    __slots__ = ("kind", "pieces", "signature", "tool")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.signature: str | None = None
        self.tool: int | None = None

    def grown(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece


def finish_reason(stop_reason: object) -> FinishReason:
    """Unknown reasons, which may be added to the API, count as `stop`."""
    return _FINISH.get(str(stop_reason), "stop")


def decode_message(body: bytes, raw: bool) -> Completion:
    """A whole message. Raises Malformed."""
    message = json_object(body)
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Malformed("content is no list of blocks")
    thinking = tuple(thought for block in content if (thought := _thought(block)) is not None)
    choice = Choice(
        text="".join(text_of(block, "text") for block in content if block.get("type") == "text"),
        finish_reason=finish_reason(message.get("stop_reason")),
        reasoning="".join(thought.text for thought in thinking),
        thinking=thinking,
        tool_calls=tuple(
            ToolCall(
                str(block.get("id")), str(block.get("name")), orjson.dumps(block.get("input") or {}).decode()
            )
            for block in content
            if block.get("type") == "tool_use"
        ),
        stop_sequence=message.get("stop_sequence"),
    )
    return Completion(
        (choice,), decode_usage(message.get("usage")), message.get("model"), body if raw else None
    )


def _thought(block: Mapping[str, Any]) -> Thinking | None:
    if block.get("type") == "thinking":
        return Thinking(text_of(block, "thinking"), block.get("signature"))
    return Thinking(encrypted=text_of(block, "data")) if block.get("type") == "redacted_thinking" else None


def decode_usage(usage: object) -> Usage | None:
    """Normal form of a `usage` object, whose `input_tokens` leave out what the cache gave and took."""
    if not isinstance(usage, dict):
        return None
    plain, output = count_of(usage, "input_tokens"), count_of(usage, "output_tokens")
    if plain is None or output is None:
        return None
    classes = usage.get("cache_creation")
    hour = count_of(classes, "ephemeral_1h_input_tokens") or 0
    written = count_of(usage, "cache_creation_input_tokens")
    if written is None:
        written = hour + (count_of(classes, "ephemeral_5m_input_tokens") or 0)
    read = count_of(usage, "cache_read_input_tokens") or 0
    thinking = count_of(usage.get("output_tokens_details"), "thinking_tokens") or 0
    return Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cached_input_tokens=read,
        reasoning_tokens=min(thinking, output),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(hour, written),
    )


def decode_count(body: bytes) -> int:
    """The answer of `count_tokens`. Raises Malformed."""
    count = count_of(json_object(body), "input_tokens")
    if count is None:
        raise Malformed("no input_tokens")
    return count


_ERRORS: Final[Mapping[str, tuple[int, type[ProviderError]]]] = {
    "invalid_request_error": (400, ProviderBadRequest),
    "authentication_error": (401, ProviderAuthFailed),
    "billing_error": (402, ProviderQuotaExhausted),
    "permission_error": (403, ProviderAuthFailed),
    "not_found_error": (404, ProviderModelMissing),
    "conflict_error": (409, ProviderError),
    "request_too_large": (413, ContextTooLong),
    "rate_limit_error": (429, ProviderRateLimited),
    "api_error": (500, ProviderError),
    "timeout_error": (504, ProviderTimeout),
    "overloaded_error": (529, ProviderError),
}
"""Error type → its documented status, for errors inside a stream that have none, and what it is here."""

_SPENT: Final = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "organization_on_hold",
    }
)
"""`error.details.error_code`s that say that the account may spend no more, told with status 400, 403 or 429."""

_TOO_LONG: Final = ("prompt is too long:", "input length and `max_tokens` exceed context limit:")
"""How the messages begin that tell of a prompt beyond the context window: the API has no code for it."""


def decode_error(provider: str, status: int | None, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The ProviderError of an error body. `status` None: it came inside a stream, and its type says the status."""
    error = _error_object(body)
    name = str(error.get("type") or "")
    known_status, kind = _ERRORS.get(name, (500, None))
    status = known_status if status is None else status
    if (
        kind is None or kind is ProviderBadRequest
    ):  # a status of its own says more than `invalid_request_error`
        kind = kind_of_status(status)
    return refusal(
        _finer(kind, error),
        provider,
        status,
        error.get("message"),
        code=name or None,
        wait_s=retry_after_s(headers),
    )


def _finer(kind: type[ProviderError], error: Mapping[str, Any]) -> type[ProviderError]:
    details = error.get("details")
    if isinstance(details, dict) and details.get("error_code") in _SPENT:
        return ProviderQuotaExhausted
    if kind is ProviderBadRequest and str(error.get("message")).startswith(_TOO_LONG):
        return ContextTooLong
    return kind


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}


def _member(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"{name} is no object")
    return value


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise Malformed("an event of a content block without its index")
    return index


def _nonempty(name: str, value: str) -> dict[str, Any]:
    return {name: value} if value else {}
