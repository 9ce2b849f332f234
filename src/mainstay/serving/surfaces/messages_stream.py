"""One answer as the events of Anthropic's Messages API (Claude API reference, "Streaming messages").

Blocks never overlap: one is closed before the next begins, and each has one type. What the provider sent in
this very format is relayed as it came; only `message_delta` and `message_stop` wait for the end, so that the
`mainstay` object can be added and nothing looks complete before it is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from mainstay.models.types import Choice, Delta, Thinking, ToolCallDelta, Usage
from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.common import extension, named_frame, spliced
from mainstay.serving.surfaces.messages_body import (
    delta_usage_body,
    error_body,
    stop_of,
    thinking_block,
    usage_body,
)
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Started
from mainstay.serving.types import Final as FinalAnswer

PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TYPE: Final = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_]+)"')
_TEXT: Final = -1
_THINKING: Final = -2
_OTHER: Final = -3
_NONE: Final = -4
"""What block is open: one of these, or a tool call's own index."""

_STARTS: Final[dict[int, dict[str, Any]]] = {
    _TEXT: {"type": "text", "text": ""},
    _THINKING: {"type": "thinking", "thinking": "", "signature": ""},
}
_Piece = str | Thinking | ToolCallDelta


class MessagesStream:
    """Renders one answer; see StreamRenderer."""

    ping = PING

    def __init__(self, request: ChatRequest, ids: Ids) -> None:
        self._request = request
        self._ids = ids
        self._model: str | None = None
        self._fallback = request.model
        self._begun = False
        self._relaying = True
        """Until the first delta that has to be rendered; the provider's own events are rendered after it, too."""
        self._held: bytes | None = None
        self._index = 0
        """Of the open block, or of the next one when none is open."""
        self._open = _NONE
        self._thought = False
        """Whether thinking was shown of which no finished form came yet, which then need not repeat it."""
        self._arguments: list[str] = []
        """Of the open tool call."""
        self._look_at = 0
        """With how many pieces its arguments are read again."""
        self._closed: set[int] = set()
        """Tool calls whose blocks are closed."""
        self._waiting: dict[int, list[_Piece]] = {}
        self._text_head = self._text_tail = b""

    def start(self, started: Started) -> bytes:
        self._model = self._request.model if started.release is not None else None
        self._fallback = started.model
        return b""

    def delta(self, delta: Delta) -> bytes:
        if delta.raw is not None and self._relaying:
            return self._relay(delta, delta.raw)
        self._relaying = False
        if delta.text and self._open == _TEXT and not self._waiting and _only_text(delta):
            return self._text_head + orjson.dumps(delta.text) + self._text_tail
        frames = [] if self._begun else self._begin(delta)
        for key, piece in _pieces(delta):
            frames += self._put(key, piece)
        return b"".join(frames)

    def end(self, final: FinalAnswer) -> bytes:
        mainstay = extension(final)
        frames = [] if self._begun else self._begin(Delta(model=final.response_model, usage=final.usage))
        frames += [*self._drain(at_end=True), *self._close()]
        if self._held is not None:
            frames.append(named_frame("message_delta", spliced(self._held, "mainstay", mainstay)))
        else:
            stop = stop_of(final.choices[0] if final.choices else Choice())
            last = {"type": "message_delta", "delta": stop, "usage": delta_usage_body(final.usage)}
            frames.append(named_frame("message_delta", spliced(orjson.dumps(last), "mainstay", mainstay)))
        return b"".join((*frames, STOP))

    def error(self, reply: ErrorReply) -> bytes:
        return named_frame("error", orjson.dumps(error_body(reply, self._ids.request_id)))

    def _relay(self, delta: Delta, raw: bytes) -> bytes:
        found = _TYPE.match(raw)
        kind = found.group(1).decode() if found else str(orjson.loads(raw).get("type"))
        if kind == "message_stop":
            return b""
        if kind == "message_delta":
            self._held = raw
            return b""
        if kind == "message_start":
            self._begun = True
        elif kind == "content_block_start":
            self._note_start(orjson.loads(raw))
        elif kind == "content_block_stop":
            self._mark_closed()
        self._arguments.extend(piece.arguments for piece in delta.tool_calls)
        self._thought = delta.thinking is None and (self._thought or bool(delta.reasoning))
        return named_frame(kind, raw)

    def _note_start(self, event: dict[str, Any]) -> None:
        """Keep count of relayed blocks, so that rendered ones can follow. Tool calls are numbered from 0."""
        kinds = {"text": _TEXT, "thinking": _THINKING, "tool_use": len(self._closed)}
        self._open_block(kinds.get(event["content_block"]["type"], _OTHER), event["index"])

    def _open_block(self, key: int, index: int) -> None:
        self._open, self._index, self._arguments, self._look_at = key, index, [], 0
        self._text_head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":' % index
        )
        self._text_tail = b"}}\n\n"

    def _mark_closed(self) -> None:
        if self._open >= 0:
            self._closed.add(self._open)
        self._open, self._index = _NONE, self._index + 1

    def _begin(self, delta: Delta) -> list[bytes]:
        self._begun = True
        message: dict[str, Any] = {
            "id": f"msg_{self._ids.trace_id}",
            "type": "message",
            "role": "assistant",
            "model": self._model or delta.model or self._fallback,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The totals come with message_delta; most providers do not say the input's before.
            "usage": usage_body(delta.usage or Usage(0, 0)),
        }
        return [_event({"type": "message_start", "message": message}), PING]

    def _put(self, key: int, piece: _Piece) -> list[bytes]:
        """Write a piece, or let it wait: while a tool call is incomplete, pieces of others cannot be told."""
        if key in self._closed:
            return []  # it was closed as a complete JSON object, after which only white space may come
        if key != self._open and (self._waiting or self._is_incomplete()):
            self._waiting.setdefault(key, []).append(piece)
            return []
        frames = self._write(key, piece)
        if self._waiting and self._is_due() and not self._is_incomplete():
            frames += self._drain(at_end=False)
        return frames

    def _drain(self, *, at_end: bool) -> list[bytes]:
        frames: list[bytes] = []
        while self._waiting and (at_end or not self._is_incomplete()):
            key = self._open if self._open in self._waiting else next(iter(self._waiting))
            for piece in self._waiting.pop(key):
                frames += self._write(key, piece)
        return frames

    def _is_due(self) -> bool:
        """Whether the open call has grown enough to be read again: to read it at every piece takes quadratic time."""
        pieces = len(self._arguments)
        if pieces < self._look_at:
            return False
        self._look_at = pieces + pieces // 8
        return True

    def _is_incomplete(self) -> bool:
        """Whether the open block is a tool call whose arguments are not yet a JSON object."""
        if self._open < 0 or not self._arguments or not self._arguments[-1].rstrip().endswith("}"):
            return self._open >= 0
        try:
            return not isinstance(orjson.loads("".join(self._arguments)), dict)
        except orjson.JSONDecodeError:
            return True

    def _write(self, key: int, piece: _Piece) -> list[bytes]:
        if isinstance(piece, ToolCallDelta):
            return self._tool(key, piece)
        if isinstance(piece, Thinking):
            return self._finished_thinking(piece)
        frames = [] if self._open == key else self._start(key, _STARTS[key])
        if key == _TEXT:
            return [*frames, self._text_head + orjson.dumps(piece) + self._text_tail]
        self._thought = True
        return [*frames, self._grow({"type": "thinking_delta", "thinking": piece})]

    def _tool(self, key: int, piece: ToolCallDelta) -> list[bytes]:
        frames: list[bytes] = []
        if self._open != key:
            block = {
                "type": "tool_use",
                "id": piece.id or f"call_{key}",
                "name": piece.name or "",
                "input": {},
            }
            frames = self._start(key, block)
        if piece.arguments:
            self._arguments.append(piece.arguments)
            frames.append(self._grow({"type": "input_json_delta", "partial_json": piece.arguments}))
        return frames

    def _finished_thinking(self, thought: Thinking) -> list[bytes]:
        """The end of a block of thinking, or all of one of which nothing was shown before."""
        if thought.encrypted is not None:
            return [*self._start(_THINKING, thinking_block(thought)), *self._close()]
        frames = [] if self._open == _THINKING else self._start(_THINKING, _STARTS[_THINKING])
        if thought.text and not self._thought:
            frames.append(self._grow({"type": "thinking_delta", "thinking": thought.text}))
        if thought.signature:
            frames.append(self._grow({"type": "signature_delta", "signature": thought.signature}))
        self._thought = False
        return [*frames, *self._close()]

    def _start(self, key: int, block: dict[str, Any]) -> list[bytes]:
        frames = self._close()
        self._open_block(key, self._index)
        begin = {"type": "content_block_start", "index": self._index, "content_block": block}
        return [*frames, _event(begin)]

    def _close(self) -> list[bytes]:
        if self._open == _NONE:
            return []
        stop = {"type": "content_block_stop", "index": self._index}
        self._mark_closed()
        return [_event(stop)]

    def _grow(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})


def _event(payload: dict[str, Any]) -> bytes:
    return named_frame(payload["type"], orjson.dumps(payload))


def _pieces(delta: Delta) -> list[tuple[int, _Piece]]:
    """What a delta says, each for its block, in the order in which models say them."""
    pieces: list[tuple[int, _Piece]] = []
    if delta.reasoning:
        pieces.append((_THINKING, delta.reasoning))
    if delta.thinking is not None:
        pieces.append((_THINKING, delta.thinking))
    pieces += [(_TEXT, said) for said in (delta.text, delta.refusal) if said]
    pieces += [(piece.index, piece) for piece in delta.tool_calls]
    return pieces


def _only_text(delta: Delta) -> bool:
    return not (delta.reasoning or delta.tool_calls or delta.refusal or delta.thinking is not None)
