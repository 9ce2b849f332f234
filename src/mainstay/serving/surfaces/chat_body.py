"""The parts of a chat answer that whole bodies and streams share, as OpenAI's API writes them."""

from __future__ import annotations

from typing import Any

from mainstay.models.types import Choice, FinishReason, Thinking, ToolCall, Usage


def usage_body(usage: Usage) -> dict[str, Any]:
    """OpenAI's classes: `prompt_tokens` includes what was read from or written to a cache."""
    read_and_written = {
        "cached_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": read_and_written,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def finish_name(reason: FinishReason, legacy: bool) -> str:
    return "function_call" if legacy and reason == "tool_calls" else reason


def choice_body(index: int, choice: Choice, legacy: bool) -> dict[str, Any]:
    return {
        "index": index,
        "message": message_body(choice, legacy),
        "logprobs": {"content": list(choice.logprobs), "refusal": None} if choice.logprobs else None,
        "finish_reason": finish_name(choice.finish_reason, legacy),
    }


def message_body(choice: Choice, legacy: bool) -> dict[str, Any]:
    """`legacy`: the request gave `functions`, so a call is a `function_call`."""
    silent = not choice.text and (choice.tool_calls or choice.refusal)
    body: dict[str, Any] = {
        "role": "assistant",
        "content": None if silent else choice.text,
        "refusal": choice.refusal or None,
    }
    if choice.reasoning:
        body["reasoning_content"] = choice.reasoning
    blocks = [block for t in choice.thinking if (block := thinking_block(t)) is not None]
    if blocks:
        body["thinking_blocks"] = blocks
    if choice.tool_calls and legacy:
        body["function_call"] = _function_body(choice.tool_calls[0])
    elif choice.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": _function_body(call)}
            for call in choice.tool_calls
        ]
    return body


def _function_body(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def thinking_block(thinking: Thinking) -> dict[str, Any] | None:
    """What a client hands back so that the provider trusts it; None when nothing vouches for it."""
    if thinking.encrypted is not None:
        return {"type": "redacted_thinking", "data": thinking.encrypted}
    if thinking.signature is None:
        return None
    return {"type": "thinking", "thinking": thinking.text, "signature": thinking.signature}
