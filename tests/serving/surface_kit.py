"""What the surfaces' tests share: answers made by hand, and official SDK clients that are fed given bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import anthropic
import httpx2
import openai
from hypothesis import strategies as st

from mainstay.models.collect import Collector
from mainstay.models.types import Delta, FinishReason, Thinking, ToolCallDelta, Usage
from mainstay.serving.surfaces import Ids, StreamRenderer
from mainstay.serving.types import Final, Started

TRACE = "0af7651916cd43dd8448eb211c80319c"
IDS = Ids("req_1", TRACE, 1_790_000_000)
USAGE = Usage(
    30, 12, cached_input_tokens=8, reasoning_tokens=3, cache_write_tokens=4, cache_write_1h_tokens=1
)


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = {}
    for _ in range(levels):
        value = [value]
    return value


def started(release: str | None = None) -> Started:
    return Started(TRACE, "snap", "acme/large", "acme", release, "bypass")


def final(deltas: Iterable[Delta], usage: Usage = USAGE, **fields: Any) -> Final:
    """The end of an answer that was given in these deltas."""
    collector = Collector()
    for delta in deltas:
        collector.take(delta)
    values: dict[str, Any] = {"response_model": collector.model, **fields}
    return Final(
        collector.choices(), usage, 1500, 12.5, TRACE, answered_by="acme/large", cache="miss", **values
    )


def streamed(renderer: StreamRenderer, deltas: Sequence[Delta], ending: Final) -> bytes:
    frames = [renderer.start(started())]
    frames += [renderer.delta(delta) for delta in deltas]
    return b"".join((*frames, renderer.end(ending)))


def events(stream: bytes) -> list[Any]:
    """The data of a stream's events, decoded; `[DONE]` as it is."""
    found = []
    for frame in stream.decode().split("\n\n"):
        lines = [line[5:].strip() for line in frame.split("\n") if line.startswith("data:")]
        if lines:
            joined = "\n".join(lines)
            found.append(joined if joined == "[DONE]" else json.loads(joined))
    return found


def _answering(body: bytes, status: int, media_type: str) -> httpx2.Client:
    def respond(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": media_type})

    return httpx2.Client(transport=httpx2.MockTransport(respond))


def openai_client(body: bytes, *, status: int = 200, media_type: str = "text/event-stream") -> openai.OpenAI:
    """A client whose every request is answered with `body`."""
    return openai.OpenAI(
        api_key="k",
        base_url="http://gateway/v1",
        max_retries=0,
        http_client=_answering(body, status, media_type),
    )


def anthropic_client(
    body: bytes, *, status: int = 200, media_type: str = "text/event-stream"
) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="k",
        base_url="http://gateway",
        max_retries=0,
        http_client=_answering(body, status, media_type),
    )


_WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
_KEYS = st.dictionaries(st.text(max_size=4), st.one_of(st.integers(-9, 9), st.text(max_size=6)), max_size=3)


@st.composite
def _blocks(draw: st.DrawFn, thinking: str) -> list[Delta]:
    """One block of text, or of thinking: shown only, or finished with what vouches for it."""
    words = draw(st.lists(_WORDS, min_size=1, max_size=3))
    if draw(st.booleans()):
        return [Delta(text=word) for word in words]
    if thinking == "shown":
        return [Delta(reasoning=word) for word in words]
    if draw(st.booleans()):
        return [Delta(thinking=Thinking(encrypted=draw(st.text("abc=", min_size=1, max_size=5))))]
    signature = draw(st.text("xyz=", min_size=1, max_size=5))
    finished = Delta(thinking=Thinking("".join(words), signature=signature))
    return [*(Delta(reasoning=word) for word in words), finished]


@st.composite
def _tool_calls(draw: st.DrawFn) -> list[Delta]:
    """Some calls whose arguments come in pieces, one call after the other or interleaved."""
    pieces: list[list[Delta]] = []
    for index in range(draw(st.integers(0, 3))):
        arguments = json.dumps(draw(_KEYS))
        cut = draw(st.integers(0, len(arguments)))
        pieces.append(
            [
                Delta(tool_calls=(ToolCallDelta(index, f"call_{index}x", f"tool_{index}"),)),
                Delta(tool_calls=(ToolCallDelta(index, arguments=arguments[:cut]),)),
                Delta(tool_calls=(ToolCallDelta(index, arguments=arguments[cut:]),)),
            ]
        )
    if draw(st.booleans()):
        return [delta for call in pieces for delta in call]
    return [delta for step in zip(*pieces, strict=True) for delta in step] if pieces else []


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    """Any answer of one choice: thinking and text in any order, then tool calls, then a finish reason."""
    thinking = draw(st.sampled_from(["shown", "signed"]))
    said = [delta for block in draw(st.lists(_blocks(thinking), max_size=4)) for delta in block]
    calls = draw(_tool_calls())
    reasons: list[FinishReason] = ["stop", "length", "content_filter"]
    reason: FinishReason = "tool_calls" if calls else draw(st.sampled_from(reasons))
    return [*said, *calls, Delta(finish_reason=reason)]
