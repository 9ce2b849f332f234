"""The parts of an answer of Anthropic's Messages API that whole bodies and streams share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from mainstay.models.types import Choice, Thinking, ToolCall, Usage
from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.common import renamed

_STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_FIELDS: Final = {
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning": "thinking",
    "reasoning_effort": "thinking",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
}
"""What this API calls fields of the normal form that a refusal may name."""
_ERROR_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Anthropic's classes: `input_tokens` leaves out what a cache gave and took."""
    hour = usage.cache_write_1h_tokens
    return {
        **delta_usage_body(usage),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - hour,
            "ephemeral_1h_input_tokens": hour,
        },
    }


def delta_usage_body(usage: Usage) -> dict[str, Any]:
    """The totals so far, as `message_delta` has them."""
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    return {
        "input_tokens": max(0, plain),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def stop_of(choice: Choice) -> dict[str, Any]:
    """`stop_reason` and `stop_sequence`. An answer that calls tools and was not cut off stops for them,
    whatever its provider called the reason: agents go on only then."""
    reason = _STOPS.get(choice.finish_reason, "end_turn")
    if choice.tool_calls and reason == "end_turn":
        reason = "tool_use"
    elif choice.refusal and reason == "end_turn":
        reason = "refusal"
    elif choice.stop_sequence is not None and reason == "end_turn":
        return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_sequence}
    return {"stop_reason": reason, "stop_sequence": None}


def content_of(choice: Choice) -> list[dict[str, Any]]:
    """Blocks: thinking, text, calls of tools. A refusal is what the model said, so it is text."""
    blocks = [thinking_block(thought) for thought in _thoughts(choice)]
    said = choice.text + choice.refusal
    if said:
        blocks.append({"type": "text", "text": said})
    blocks += [_tool_block(call) for call in choice.tool_calls]
    return blocks


def _thoughts(choice: Choice) -> tuple[Thinking, ...]:
    """All reasoning as blocks: a provider may have shown it without ever giving a finished block of it."""
    thoughts = choice.thinking
    if not choice.reasoning or any(thought.text for thought in thoughts):
        return thoughts
    for index, thought in enumerate(thoughts):
        if thought.encrypted is None:
            return (*thoughts[:index], replace(thought, text=choice.reasoning), *thoughts[index + 1 :])
    return (Thinking(choice.reasoning), *thoughts)


def thinking_block(thought: Thinking) -> dict[str, Any]:
    if thought.encrypted is not None:
        return {"type": "redacted_thinking", "data": thought.encrypted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature or ""}


def _tool_block(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call.arguments)}


def tool_input(arguments: str) -> Any:
    """The arguments as the object that this API wants. A model may write what is none, above all when it was
    cut off: then the text is wrapped, as Anthropic's guide on tool streaming advises for invalid JSON."""
    if not arguments.strip():
        return {}
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def error_body(reply: ErrorReply, request_id: str | None = None) -> dict[str, Any]:
    """Anthropic's error form; the code, the field and what helps to mend it are in `mainstay`."""
    said = renamed(reply.body["error"], _FIELDS)
    more = said.get("mainstay") or {}
    kind = _ERROR_TYPES.get(reply.status, "invalid_request_error" if reply.status < 500 else "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": said["message"]},
        "request_id": request_id or more.get("request_id") or more.get("trace_id"),
        "mainstay": {"code": said.get("code"), "param": said.get("param"), **more},
    }
