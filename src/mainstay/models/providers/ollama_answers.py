"""What Ollama answers: lines and whole answers become deltas, with their usage and errors. Pure but for a stream's state.

Source: Ollama API, `/api/chat`, `/api/embed`, "Streaming", "Usage" and "Errors", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import orjson

from mainstay.models.collect import Collector
from mainstay.models.errors import (
    ContextTooLong,
    ProviderError,
    ProviderModelMissing,
)
from mainstay.models.providers.answers import Malformed, count_of, json_object
from mainstay.models.providers.refusals import kind_of_status, refusal, retry_after_s
from mainstay.models.types import Completion, Delta, FinishReason, Thinking, ToolCallDelta, Usage

LINE_BYTES_MAX: Final = 4 << 20
_FINISH: Final[Mapping[str, FinishReason]] = {"stop": "stop", "length": "length"}


class LineReader:
    """Feed bytes, get whole lines of newline-delimited JSON; an unfinished one waits."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises Malformed for a line beyond LINE_BYTES_MAX."""
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._rest, whole[0]))
            self._rest, self._size = [], 0
        self._rest.append(rest)
        self._size += len(rest)
        if self._size > LINE_BYTES_MAX:
            raise Malformed(f"a line exceeds {LINE_BYTES_MAX} bytes")
        return [line for line in whole if line.strip()]


class OllamaStream:
    """One answer: feed it each line, get its deltas; a whole answer is one line. `finished` after `done`.

    `usage` is there once it is finished, None when the server did not count.
    """

    def __init__(self, provider: str, model: str) -> None:
        self.finished = False
        self.usage: Usage | None = None
        self._provider = provider
        self._asked = model
        self._model: str | None = None
        self._thought: list[str] = []
        self._calls = 0

    def take(self, line: bytes) -> Iterator[Delta]:
        """Raises Malformed, and the ProviderError that an `error` line tells of."""
        said = json_object(line)
        if "error" in said:
            raise decode_error(self._provider, 500, line, {}, self._asked)
        model = said.get("model")
        if self._model is None and isinstance(model, str):
            self._model = model
            yield Delta(model=model)
        message = said.get("message") or {}
        if not isinstance(message, dict):
            raise Malformed("a message that is no object")
        yield from self._message(message)
        logprobs = said.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            yield Delta(logprobs=tuple(_logprob(item) for item in logprobs if isinstance(item, dict)))
        if said.get("done"):
            yield from self._end(said)

    def _message(self, message: Mapping[str, Any]) -> Iterator[Delta]:
        thinking, content = _text(message, "thinking"), _text(message, "content")
        if thinking:
            self._thought.append(thinking)
            yield Delta(reasoning=thinking)
        calls = message.get("tool_calls") or []
        if content or calls:
            yield from self._end_thought()
        if content:
            yield Delta(content)
        if not isinstance(calls, list):
            raise Malformed("tool_calls is no list")
        for call in calls:
            yield self._call(call)

    def _call(self, call: object) -> Delta:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict) or not function.get("name"):
            raise Malformed("a tool call without the name of its function")
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        call_id = str(call.get("id") or f"call_{uuid4().hex[:24]}")
        piece = ToolCallDelta(self._calls, call_id, str(function["name"]), arguments)
        self._calls += 1
        return Delta(tool_calls=(piece,))

    def _end(self, said: Mapping[str, Any]) -> Iterator[Delta]:
        yield from self._end_thought()
        self.finished = True
        self.usage = decode_usage(said)
        reason = _FINISH.get(str(said.get("done_reason")), "stop")
        yield Delta(finish_reason="tool_calls" if reason == "stop" and self._calls else reason)

    def _end_thought(self) -> Iterator[Delta]:
        if self._thought:
            yield Delta(thinking=Thinking("".join(self._thought)))
            self._thought.clear()


def decode_answer(provider: str, model: str, body: bytes) -> Completion:
    """A whole answer. Raises as OllamaStream.take, and Malformed when it is not done."""
    reader, collector = OllamaStream(provider, model), Collector()
    for delta in reader.take(body):
        collector.take(delta)
    if not reader.finished:
        raise Malformed("it is not done")
    collector.usage = reader.usage
    return collector.completion()


def decode_usage(said: Mapping[str, Any]) -> Usage | None:
    """Normal form of the counts of the last line; None when one is missing. Thinking is in `eval_count`, uncounted."""
    prompt, output = count_of(said, "prompt_eval_count"), count_of(said, "eval_count")
    return None if prompt is None or output is None else Usage(prompt, output)


def decode_embeddings(body: bytes) -> tuple[tuple[tuple[float, ...], ...], int | None, str | None]:
    """Vectors, the tokens of the texts when it says so, and the model. Raises Malformed."""
    answer = json_object(body)
    rows = answer.get("embeddings")
    if not isinstance(rows, list) or not all(_is_vector(row) for row in rows):
        raise Malformed("embeddings is no list of lists of numbers")
    model = answer.get("model")
    vectors = tuple(tuple(map(float, row)) for row in rows)
    return vectors, count_of(answer, "prompt_eval_count"), model if isinstance(model, str) else None


_TOO_LONG_TYPE: Final = "exceed_context_size_error"
_TOO_LONG: Final = (
    "the input length exceeds the context length",
    "the prompt is longer than the context length",
)
"""How the messages begin that tell of a prompt beyond the context; newer servers send the runner's error as JSON."""


def decode_error(
    provider: str, status: int, body: bytes, headers: Mapping[str, str], model: str
) -> ProviderError:
    """The ProviderError of an error body or line. Inside a stream the status is lost, and 500 stands for it."""
    said, kind_named = _said(body)
    too_long = kind_named == _TOO_LONG_TYPE or said.startswith(_TOO_LONG)
    kind = ContextTooLong if too_long else kind_of_status(status)
    return refusal(
        kind,
        provider,
        status,
        said,
        code=kind_named,
        fix=_fix(kind, model),
        wait_s=retry_after_s(headers),
    )


def _fix(kind: type[ProviderError], model: str) -> str | None:
    if kind is ProviderModelMissing:
        return f"Run `ollama pull {model}` where Ollama runs."
    if kind is ContextTooLong:
        return "Send less, or raise `context_tokens` of the model or `num_ctx` of the provider."
    return None


def _said(body: bytes) -> tuple[str, str | None]:
    """(message, type) of `{"error": …}`; the runner's own error may be in there as an object or as JSON text."""
    error: object = body
    for _ in range(4):
        if isinstance(error, str | bytes):
            try:
                error = orjson.loads(error)
            except orjson.JSONDecodeError:
                break
        if isinstance(error, dict) and "error" in error:
            error = error["error"]
    if isinstance(error, dict):
        kind = error.get("type")
        return str(error.get("message") or "").strip(), kind if isinstance(kind, str) else None
    return (error.strip(), None) if isinstance(error, str) else ("", None)


def _logprob(item: Mapping[str, Any]) -> dict[str, Any]:
    """As OpenAI's `content` items, which it nearly is."""
    top = item.get("top_logprobs") or []
    return _token(item) | {"top_logprobs": [_token(other) for other in top if isinstance(other, dict)]}


def _token(item: Mapping[str, Any]) -> dict[str, Any]:
    token = str(item.get("token", ""))
    given = item.get("bytes")
    return {
        "token": token,
        "logprob": item.get("logprob", 0.0),
        "bytes": given if isinstance(given, list) else list(token.encode()),
    }


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name) or ""
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value


def _is_vector(row: object) -> bool:
    return isinstance(row, list) and all(isinstance(x, int | float) for x in row)
