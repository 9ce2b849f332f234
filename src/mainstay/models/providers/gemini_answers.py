"""What the Gemini API answers: chunks and whole answers become deltas, with their usage. Pure but for a stream's state.

Source: Gemini API reference (v1beta), `GenerateContentResponse`, `Candidate`, `FinishReason`, `UsageMetadata` and
`LogprobsResult`, with "Thought signatures"; Vertex AI, "Generate content with the Gemini API"; all as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import orjson

from mainstay.models.collect import Collector
from mainstay.models.errors import ProviderBadRequest, ProviderError, ProviderStreamBroken
from mainstay.models.providers.answers import Malformed, count_of, json_object
from mainstay.models.providers.gemini_errors import decode_error
from mainstay.models.providers.gemini_signatures import END, TEXT, THOUGHT, call_place, signed
from mainstay.models.types import Completion, Delta, FinishReason, Thinking, ToolCallDelta, Usage

_FINISH: Final[Mapping[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}
_BROKEN: Final[Mapping[str, str]] = {
    "MALFORMED_FUNCTION_CALL": "made a call of a function that is not valid",
    "UNEXPECTED_TOOL_CALL": "called a tool that the request does not offer",
    "TOO_MANY_TOOL_CALLS": "called too many tools in a row",
    "MALFORMED_RESPONSE": "made an answer that is not valid",
    "OTHER": "stopped for a reason it does not tell",
}


class GeminiStream:
    """One answer: feed it the data of each chunk, get its deltas; a whole answer is one chunk.

    `over`: nothing more can come, as all `wanted` candidates have finished or the prompt was blocked.
    `finished`: every candidate that began has finished.
    """

    def __init__(self, provider: str, wanted: int = 1) -> None:
        self.usage: Usage | None = None
        self._provider = provider
        self._wanted = wanted
        self._candidates: dict[int, _Candidate] = {}
        self._blocked = False
        self._model: str | None = None

    @property
    def over(self) -> bool:
        return self._blocked or (self.finished and len(self._candidates) >= self._wanted)

    @property
    def finished(self) -> bool:
        begun = self._candidates.values()
        return self._blocked or (bool(begun) and all(candidate.finished for candidate in begun))

    def take(self, data: bytes) -> Iterator[Delta]:
        """Raises Malformed, the ProviderError that an error among the chunks tells of, and ProviderStreamBroken
        for an answer that Gemini itself calls invalid."""
        chunk = json_object(data, listed=True)  # a list holds the error of a stream without alt=sse
        if "error" in chunk:
            raise decode_error(self._provider, None, data, {})
        self.usage = decode_usage(chunk.get("usageMetadata")) or self.usage
        if self._model is None and isinstance(chunk.get("modelVersion"), str):
            self._model = chunk["modelVersion"]
            yield Delta(model=self._model)
        for candidate in _objects(chunk, "candidates"):
            index = candidate.get("index", 0)
            if not isinstance(index, int):
                raise Malformed("a candidate whose index is no number")
            if index not in self._candidates:
                self._candidates[index] = _Candidate(index)
            yield from self._candidates[index].take(candidate)
            yield from self._end(self._candidates[index], candidate)
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason") and not self._candidates:
            self._blocked = True
            yield Delta(finish_reason="content_filter")

    def _end(self, state: _Candidate, candidate: Mapping[str, Any]) -> Iterator[Delta]:
        reason = candidate.get("finishReason")
        if reason in (None, "FINISH_REASON_UNSPECIFIED"):
            return
        reason = str(reason)
        if reason in _BROKEN or reason == "MISSING_THOUGHT_SIGNATURE":
            raise self._failure(reason, candidate.get("finishMessage"))
        yield from state.end(_FINISH.get(reason, "stop"))

    def _failure(self, reason: str, said: object) -> ProviderError:
        """`said` may hold what the model wrote, so it is left out but for a fault of the request."""
        if reason == "MISSING_THOUGHT_SIGNATURE":
            return ProviderBadRequest(
                f"{self._provider} misses a thought signature in the messages ({said or reason}).",
                provider=self._provider,
                fix="Send blocks of thinking back as they came.",
                upstream_code=reason,
            )
        return ProviderStreamBroken(
            f"{self._provider} {_BROKEN[reason]}.", provider=self._provider, upstream_code=reason
        )


class _Candidate:
    """One candidate as it grows."""

    def __init__(self, index: int) -> None:
        self.finished = False
        self._index = index
        self._thought: list[str] = []
        self._calls = 0

    def take(self, candidate: Mapping[str, Any]) -> Iterator[Delta]:
        content = candidate.get("content")
        for part in _objects(content, "parts") if isinstance(content, dict) else ():
            yield from self._part(part)
        logprobs = decode_logprobs(candidate.get("logprobsResult"))
        if logprobs:
            yield Delta(index=self._index, logprobs=logprobs)

    def end(self, reason: FinishReason) -> Iterator[Delta]:
        yield from self._end_thought()
        self.finished = True
        called = reason == "stop" and self._calls
        yield Delta(index=self._index, finish_reason="tool_calls" if called else reason)

    def _part(self, part: Mapping[str, Any]) -> Iterator[Delta]:
        signature = part.get("thoughtSignature")
        text = part.get("text", "")
        if not isinstance(text, str):
            raise Malformed("a text that is none")
        if part.get("thought"):
            yield from self._thinking(text, signature)
            return
        yield from self._end_thought()
        if "functionCall" in part:
            yield from self._call(part["functionCall"], signature)
        elif "text" not in part and signature is None:
            raise Malformed(f"a part of a kind we do not know: {', '.join(sorted(part)) or 'none'}")
        else:
            if text:
                yield Delta(text, index=self._index)
            if signature:
                yield Delta(index=self._index, thinking=signed(TEXT if text else END, signature))

    def _thinking(self, text: str, signature: str | None) -> Iterator[Delta]:
        if text:
            self._thought.append(text)
            yield Delta(index=self._index, reasoning=text)
        if signature:
            block = signed(THOUGHT, signature, "".join(self._thought))
            self._thought.clear()
            yield Delta(index=self._index, thinking=block)

    def _end_thought(self) -> Iterator[Delta]:
        if self._thought:
            yield Delta(index=self._index, thinking=Thinking("".join(self._thought)))
            self._thought.clear()

    def _call(self, call: object, signature: str | None) -> Iterator[Delta]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise Malformed("a call of a function without its name")
        call_id = str(call.get("id") or f"call_{uuid4().hex[:24]}")
        if signature:  # before the call, as blocks of thinking stand before what they led to
            yield Delta(index=self._index, thinking=signed(call_place(call_id), signature))
        arguments = orjson.dumps(call.get("args") or {}).decode()
        piece = ToolCallDelta(self._calls, call_id, call["name"], arguments)
        self._calls += 1
        yield Delta(index=self._index, tool_calls=(piece,))


def decode_answer(provider: str, body: bytes) -> Completion:
    """A whole answer. Raises as GeminiStream.take, and Malformed when a candidate has no end."""
    reader, collector = GeminiStream(provider), Collector()
    for delta in reader.take(body):
        collector.take(delta)
    if not reader.finished:
        raise Malformed("no candidate, or one without finishReason")
    collector.usage = reader.usage
    return collector.completion()


def decode_usage(usage: object) -> Usage | None:
    """Normal form of `usageMetadata`; None when it does not count the prompt.

    `promptTokenCount` includes what the cache gave, `candidatesTokenCount` leaves thoughts out; both leave out what
    tools of Google's own put into the prompt. What the total has beyond them is output: thoughts not counted apart.
    """
    prompt = count_of(usage, "promptTokenCount")
    if prompt is None:
        return None
    read = prompt + (count_of(usage, "toolUsePromptTokenCount") or 0)
    said, thoughts = count_of(usage, "candidatesTokenCount") or 0, count_of(usage, "thoughtsTokenCount") or 0
    output, total = said + thoughts, count_of(usage, "totalTokenCount")
    if total is not None and total > read + output:
        thoughts += total - read - output
        output = total - read
    elif total is not None and total == read + said:  # thoughts are counted among what was said
        output = said
    cached = min(count_of(usage, "cachedContentTokenCount") or 0, read)
    heard = _sound(usage, "promptTokensDetails") - _sound(usage, "cacheTokensDetails")
    return Usage(
        input_tokens=read,
        output_tokens=output,
        cached_input_tokens=cached,
        reasoning_tokens=min(thoughts, output),
        audio_input_tokens=min(max(heard, 0), read - cached),
        audio_output_tokens=min(_sound(usage, "candidatesTokensDetails"), output),
    )


def decode_logprobs(result: object) -> tuple[Mapping[str, Any], ...]:
    """`logprobsResult` as OpenAI's `content` items."""
    if not isinstance(result, dict):
        return ()
    chosen, top = _objects(result, "chosenCandidates"), _objects(result, "topCandidates")
    return tuple(
        _token(token) | {"top_logprobs": [_token(other) for other in _objects(alike, "candidates")]}
        for token, alike in zip(chosen, top + [{}] * (len(chosen) - len(top)), strict=False)
    )


def decode_embeddings(body: bytes) -> tuple[tuple[tuple[float, ...], ...], int | None]:
    """Vectors, and the tokens of the texts when it says so. Raises Malformed."""
    answer = json_object(body)
    vectors = []
    for embedding in _objects(answer, "embeddings"):
        values = embedding.get("values")
        if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
            raise Malformed("an embedding without its values")
        vectors.append(tuple(map(float, values)))
    return tuple(vectors), count_of(answer.get("usageMetadata"), "promptTokenCount")


def decode_count(body: bytes) -> int:
    """The answer of `countTokens`. Raises Malformed."""
    count = count_of(json_object(body), "totalTokens")
    if count is None:
        raise Malformed("no totalTokens")
    return count


def _token(candidate: Mapping[str, Any]) -> dict[str, Any]:
    token = str(candidate.get("token", ""))
    return {"token": token, "logprob": candidate.get("logProbability", 0.0), "bytes": list(token.encode())}


def _sound(usage: object, details: str) -> int:
    counts = _objects(usage, details) if isinstance(usage, dict) else []
    return sum(count_of(count, "tokenCount") or 0 for count in counts if count.get("modality") == "AUDIO")


def _objects(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = holder.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Malformed(f"{name} is no list of objects")
    return value
