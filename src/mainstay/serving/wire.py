"""Answers in OpenAI's wire form: one `chat.completion` body, or a stream of `chat.completion.chunk`s."""

from __future__ import annotations

from typing import Any

from mainstay.models.types import Delta, Usage
from mainstay.serving.types import Final


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def completion_body(final: Final, model: str, created_s: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{final.trace_id}",
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": final.text, "refusal": None},
                "logprobs": None,
                "finish_reason": final.finish_reason,
            }
        ],
        "usage": usage_body(final.usage),
        "mainstay": final.extension(),
    }


class ChunkRenderer:
    """The chunks of one stream: role first, then text, the finish with the `mainstay` object, usage if asked."""

    def __init__(self, trace_id: str, model: str, created_s: int, include_usage: bool) -> None:
        self._base = {
            "id": f"chatcmpl-{trace_id}",
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._include_usage = include_usage
        self._role: dict[str, str] = {"role": "assistant"}

    def text(self, delta: Delta) -> dict[str, Any]:
        role, self._role = self._role, {}
        return self._chunk({**role, "content": delta.text}, None)

    def end(self, final: Final) -> list[dict[str, Any]]:
        last = {**self._chunk(dict(self._role), final.finish_reason), "mainstay": final.extension()}
        if not self._include_usage:
            return [last]
        return [last, {**self._base, "choices": [], "usage": usage_body(final.usage)}]

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, Any] = {**self._base, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk
