"""One chat answer as `chat.completion.chunk`s (OpenAI API reference, "Streaming").

What the provider sent in this very format is relayed as it came, but for two chunks that wait for the end:
the last one with a finish reason, to which the `mainstay` object is added, and the one of usage alone,
which is sent only when it was asked for.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from mainstay.models.types import Delta, Thinking
from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.chat_body import finish_name, thinking_block, usage_body
from mainstay.serving.surfaces.common import data_frame, extension, spliced
from mainstay.serving.types import ChatRequest, Started
from mainstay.serving.types import Final as FinalAnswer

DONE: Final = b"data: [DONE]\n\n"


class ChatStream:
    """Renders one answer; see StreamRenderer."""

    ping = b": ping\n\n"

    def __init__(self, request: ChatRequest, answer_id: str, created_s: int) -> None:
        self._request = request
        self._id = answer_id
        self._created_s = created_s
        self._legacy = bool(request.hints.get("legacy_functions"))
        self._model: str | None = None
        self._fallback = request.model
        self._head = self._tail = self._text_head = self._text_tail = b""
        self._spoken: set[int] = set()
        """Choices that have said their role."""
        self._called: set[tuple[int, int]] = set()
        """Tool calls (choice, index) that have said their id."""
        self._blocks: dict[int, int] = {}
        self._finished: set[int] = set()
        """Choices whose finish reason is in a chunk of the provider's."""
        self._held: bytes | None = None
        self._usage: bytes | None = None

    def start(self, started: Started) -> bytes:
        self._model = self._request.model if started.release is not None else None
        self._fallback = started.model
        return b""

    def delta(self, delta: Delta) -> bytes:
        if delta.raw is not None and not self._legacy:
            return self._relay(delta, delta.raw)
        if not self._head:
            self._open(delta)
        if delta.text and delta.index == 0 and 0 in self._spoken and _only_text(delta):
            return self._text_head + orjson.dumps(delta.text) + self._text_tail
        said = self._said(delta)
        if not said:
            return b""
        logprobs = {"content": list(delta.logprobs), "refusal": None} if delta.logprobs else None
        return self._chunk(delta.index, said, logprobs, None)

    def end(self, final: FinalAnswer) -> bytes:
        """Finishes the choices that the provider's own chunks did not, then usage when asked for."""
        if not self._head:
            self._open(Delta(model=final.response_model))
        mainstay = extension(final)
        frames = []
        waiting = [index for index in range(len(final.choices)) if index not in self._finished]
        for index in waiting:
            role = {} if index in self._spoken else {"role": "assistant", "content": ""}
            reason = finish_name(final.choices[index].finish_reason, self._legacy)
            last = self._held is None and index == waiting[-1]
            frames.append(self._chunk(index, role, None, reason, mainstay if last else None))
        if self._held is not None:
            frames.append(data_frame(spliced(self._held, "mainstay", mainstay)))
        if self._request.include_usage:
            usage = (
                self._usage
                or self._head + b'"choices":[],"usage":' + orjson.dumps(usage_body(final.usage)) + b"}"
            )
            frames.append(data_frame(usage))
        return b"".join((*frames, DONE))

    def error(self, reply: ErrorReply) -> bytes:
        return data_frame(orjson.dumps(reply.body))

    def _relay(self, delta: Delta, raw: bytes) -> bytes:
        self._spoken.add(delta.index)
        if delta.tool_calls:
            self._called.update((delta.index, piece.index) for piece in delta.tool_calls)
        if delta.finish_reason is not None:
            earlier, self._held = self._held, raw
            self._finished.add(delta.index)
            return b"" if earlier is None else data_frame(earlier)
        if delta.usage is not None and not delta.text and _only_text(delta):
            self._usage = raw
            return b""
        return data_frame(raw)

    def _open(self, delta: Delta) -> None:
        model = self._model or delta.model or self._fallback
        base = {"id": self._id, "object": "chat.completion.chunk", "created": self._created_s, "model": model}
        self._head = orjson.dumps(base)[:-1] + b","
        self._tail = b',"usage":null}' if self._request.include_usage else b"}"
        self._text_head = b"data: " + self._head + b'"choices":[{"index":0,"delta":{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._tail + b"\n\n"

    def _chunk(
        self,
        index: int,
        said: dict[str, Any],
        logprobs: dict[str, Any] | None,
        finish_reason: str | None,
        mainstay: bytes | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish_reason}
        tail = self._tail if mainstay is None else b',"mainstay":' + mainstay + self._tail
        return b"".join((b"data: ", self._head, b'"choices":[', orjson.dumps(choice), b"]", tail, b"\n\n"))

    def _said(self, delta: Delta) -> dict[str, Any]:
        """The `delta` object: the role before a choice's first words, then what there is."""
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.refusal:
            said["refusal"] = delta.refusal
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.thinking is not None and (block := self._block(delta.index, delta.thinking)):
            said["thinking_blocks"] = [block]
        if delta.tool_calls:
            said |= self._calls(delta)
        if delta.logprobs and not said:
            said["content"] = ""
        if said and delta.index not in self._spoken:
            self._spoken.add(delta.index)
            said = {"role": "assistant", "content": None if delta.tool_calls else "", **said}
        return said

    def _block(self, choice: int, thinking: Thinking) -> dict[str, Any] | None:
        """Lists in a delta carry an `index`: SDKs merge their items by it."""
        block = thinking_block(thinking)
        if block is None:
            return None
        index = self._blocks.get(choice, 0)
        self._blocks[choice] = index + 1
        return {"index": index, **block}

    def _calls(self, delta: Delta) -> dict[str, Any]:
        pieces: list[dict[str, Any]] = []
        for piece in delta.tool_calls:
            key = (delta.index, piece.index)
            if key in self._called:
                pieces.append({"index": piece.index, "function": {"arguments": piece.arguments}})
                continue
            self._called.add(key)
            pieces.append(
                {
                    "index": piece.index,
                    "id": piece.id or f"call_{piece.index}",
                    "type": "function",
                    "function": {"name": piece.name or "", "arguments": piece.arguments},
                }
            )
        if not self._legacy:
            return {"tool_calls": pieces}
        first = [piece["function"] for piece in pieces if piece["index"] == 0]
        return {"function_call": first[0]} if first else {}


def _only_text(delta: Delta) -> bool:
    return not (
        delta.reasoning
        or delta.tool_calls
        or delta.logprobs
        or delta.refusal
        or delta.thinking is not None
        or delta.finish_reason is not None
    )
