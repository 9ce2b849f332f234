"""The OpenAI chat-completions answers, whole and streamed, in the normal form. Pure functions.

Source: OpenAI API reference, "The chat completion object" and "chunk object", as also spoken by vLLM, SGLang,
Ollama, LM Studio, Groq, Mistral, Together, DeepSeek, xAI and OpenRouter, with what they add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from mainstay.models.providers.answers import count_of
from mainstay.models.types import Choice, Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage

__all__ = [
    "InBandError",
    "MalformedEvent",
    "decode_chunk",
    "decode_completion",
    "decode_event",
    "decode_events",
    "decode_usage",
]

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_FAILED: Final[Mapping[str, int]] = {
    "error": 502,  # OpenRouter, Mistral
    "abort": 503,  # vLLM, SGLang
    "insufficient_system_resource": 503,  # DeepSeek
}
"""Finish reasons that are failures, with the status that says the same."""


class MalformedEvent(ValueError):
    """An event that is no JSON object of the expected shape."""


class InBandError(Exception):
    """The provider reported an error inside an answer that had begun with status 200."""

    def __init__(self, status: int | None, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    """A `delta` or a `message`."""

    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_ToolCall] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: Any = None
    logprobs: _Logprobs | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None
    model: Any = None
    x_groq: Any = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def decode_events(data: bytes, keep_raw: bool = True) -> tuple[Delta, ...]:
    """One event's deltas, one a choice; none when it says nothing new. Raises MalformedEvent and InBandError.

    `raw` is set when the event holds one choice, so that whoever relays it relays each event once.
    """
    answer = _read(data)
    raw = data if keep_raw else None
    if answer.error or answer.object == "error":
        raise _in_band(data)
    choices = answer.choices
    if choices is not None and len(choices) == 1 and answer.usage is None:
        choice = choices[0]
        if choice.finish_reason is None and choice.logprobs is None and (text := _mere_text(choice.delta)):
            model = answer.model if answer.model.__class__ is str else None
            return (Delta(text, None, None, choice.index, model=model, raw=raw),)  # nearly every event
    usage = None
    if answer.usage is not None or answer.x_groq is not None:
        usage = decode_usage(answer.usage or _groq_usage(answer.x_groq))
    if not choices:
        return () if usage is None else (Delta(usage=usage, raw=raw),)
    if len(choices) == 1:
        delta = _delta(choices[0], usage, answer.model, raw)
        return () if delta is None else (delta,)
    deltas = [_delta(choice, None, answer.model, None) for choice in choices]
    said = [delta for delta in deltas if delta is not None]
    return (*said, Delta(usage=usage)) if usage is not None else tuple(said)


def _mere_text(said: _Said | None) -> str | None:
    """What was said, when it is text and nothing else."""
    if (
        said is None
        or not said.content
        or said.content.__class__ is not str
        or said.tool_calls is not None
        or said.reasoning_content is not None
        or said.reasoning is not None
        or said.refusal is not None
    ):
        return None
    text: str = said.content
    return text


def decode_event(data: str | bytes) -> Delta | None:
    """As decode_events, of the first choice alone."""
    deltas = decode_events(data.encode() if isinstance(data, str) else data)
    return deltas[0] if deltas else None


def decode_chunk(event: object) -> Delta | None:
    """As decode_event, from decoded JSON."""
    return decode_event(orjson.dumps(event))


def _read(data: bytes) -> _Answer:
    try:
        return _decode_answer(data)
    except msgspec.ValidationError as error:
        if _names_error(data):
            raise _in_band(data) from error
        raise MalformedEvent(f"{error}: {data[:80]!r}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedEvent(f"not JSON: {data[:80]!r}") from error


def _names_error(data: bytes) -> bool:
    event = orjson.loads(data)
    return isinstance(event, dict) and bool(event.get("error"))


def _delta(choice: _Choice, usage: Usage | None, model: object, raw: bytes | None) -> Delta | None:
    said = choice.delta or choice.message
    finish = None if choice.finish_reason is None else _finish(choice.finish_reason)
    text = reasoning = refusal = ""
    calls: tuple[ToolCallDelta, ...] = ()
    if said is not None:
        content = said.content
        text = content if content.__class__ is str else _text(content)
        reasoning = _reasoning(said)
        refusal = said.refusal if isinstance(said.refusal, str) else ""
        if said.tool_calls:
            calls = tuple(_call_piece(call, at) for at, call in enumerate(said.tool_calls))
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    if not (text or finish or usage or reasoning or refusal or calls or logprobs):
        return None
    return Delta(
        text=text,
        finish_reason=finish,
        usage=usage,
        index=choice.index,
        reasoning=reasoning,
        tool_calls=calls,
        logprobs=tuple(logprobs) if logprobs else (),
        refusal=refusal,
        model=model if isinstance(model, str) else None,
        raw=raw,
    )


def _finish(reason: object) -> FinishReason:
    if not isinstance(reason, str):
        raise MalformedEvent(f"a finish_reason is no text: {str(reason)[:80]!r}")
    if reason in _FAILED:
        raise InBandError(_FAILED[reason], orjson.dumps({"error": {"message": reason, "code": reason}}))
    return _FINISH.get(reason, "stop")


def _call_piece(call: _ToolCall, position: int) -> ToolCallDelta:
    function = call.function or _Function()
    return ToolCallDelta(
        index=position if call.index is None else call.index,
        id=call.id or None,
        name=function.name or None,
        arguments=_arguments(function.arguments),
    )


def _arguments(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _text(content: object) -> str:
    """The text parts of a list of parts (Mistral); else nothing."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict) and part.get("type") != "thinking")
        return "".join(str(part.get("text") or "") for part in parts)
    return ""


def _reasoning(said: _Said) -> str:
    """Visible thinking: DeepSeek and vLLM `reasoning_content`, OpenRouter, Groq and newer vLLM `reasoning`,
    Mistral a part of type `thinking`."""
    for value in (said.reasoning_content, said.reasoning):
        if value.__class__ is str and value:
            return str(value)
    if isinstance(said.content, list):
        blocks = (
            p.get("thinking") for p in said.content if isinstance(p, dict) and p.get("type") == "thinking"
        )
        return "".join(block if isinstance(block, str) else _text(block) for block in blocks)
    return ""


def _in_band(data: bytes) -> InBandError:
    event = orjson.loads(data)
    if event.get("object") == "error" and not event.get("error"):  # vLLM puts the error's fields at the top
        event = {"error": event}
    return InBandError(_error_status(event["error"]), orjson.dumps(event))


def _error_status(error: object) -> int | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None


def decode_completion(body: bytes) -> Completion:
    """A whole answer; `raw` is the body. Raises MalformedEvent and InBandError."""
    answer = _read(body)
    if answer.error or answer.object == "error":
        raise _in_band(body)
    if not answer.choices:
        raise MalformedEvent(f"no choices: {body[:80]!r}")
    choices = answer.choices
    if len(choices) > 1:
        choices.sort(key=lambda c: c.index)
    return Completion(
        tuple([_whole_choice(choice) for choice in choices]),
        decode_usage(answer.usage or _groq_usage(answer.x_groq)),
        answer.model if isinstance(answer.model, str) else None,
        body,
    )


def _whole_choice(choice: _Choice) -> Choice:
    text = _mere_text(choice.delta or choice.message)
    if text is not None and choice.logprobs is None and choice.finish_reason == "stop":
        return Choice(text)  # nearly every answer
    delta = _delta(choice, None, None, None) or Delta()
    if choice.finish_reason is None:
        raise MalformedEvent("a choice has no finish_reason")
    calls = tuple(
        ToolCall(piece.id or f"call_{piece.index}", piece.name or "", piece.arguments)
        for piece in delta.tool_calls
    )
    return Choice(
        text=delta.text,
        finish_reason=delta.finish_reason or "stop",
        reasoning=delta.reasoning,
        tool_calls=calls,
        logprobs=delta.logprobs,
        refusal=delta.refusal,
    )


def _groq_usage(extension: object) -> object:
    return extension.get("usage") if isinstance(extension, dict) else None


def decode_usage(usage: object) -> Usage | None:
    """Normal form of a `usage` object; None when it is absent or has no counts.

    What a total has beyond prompt and completion is reasoning that the vendor counts apart (xAI, Gemini): it is
    billed as output, so it is added there.
    """
    if not isinstance(usage, dict):
        return None
    prompt, completion = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    if len(usage) == 3 and usage.get("total_tokens") == prompt + completion:  # nothing else is told
        return Usage(prompt, completion)
    given, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    reasoning = _first(count_of(written, "reasoning_tokens"), count_of(usage, "reasoning_tokens"))
    apart = (count_of(usage, "total_tokens") or 0) - prompt - completion
    if apart > 0 and reasoning in (0, apart):
        completion, reasoning = completion + apart, apart
    cached = _first(
        count_of(given, "cached_tokens"),
        count_of(usage, "prompt_cache_hit_tokens"),  # DeepSeek
        count_of(usage, "cached_tokens"),  # Moonshot
    )
    cached = min(cached, prompt)
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=cached,
        reasoning_tokens=min(reasoning, completion),
        cache_write_tokens=min(count_of(given, "cache_write_tokens") or 0, prompt - cached),  # OpenRouter
        audio_input_tokens=min(count_of(given, "audio_tokens") or 0, prompt),
        audio_output_tokens=min(count_of(written, "audio_tokens") or 0, completion),
    )


def _first(*counts: int | None) -> int:
    return next((count for count in counts if count), 0)


def _or(count: int | None, otherwise: int) -> int:
    return otherwise if count is None else count


def decode_embeddings(body: bytes) -> tuple[Sequence[object], Mapping[str, Any]]:
    """(the items' `embedding` in the order of the texts, the whole body). Raises MalformedEvent and InBandError."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent(f"not JSON: {body[:80]!r}") from error
    if not isinstance(answer, dict):
        raise MalformedEvent(f"no JSON object: {body[:80]!r}")
    if answer.get("error"):
        raise _in_band(body)
    items = answer.get("data")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise MalformedEvent(f"data is no list of objects: {body[:80]!r}")
    ordered = sorted(enumerate(items), key=lambda pair: _or(count_of(pair[1], "index"), pair[0]))
    return [item.get("embedding") for _, item in ordered], answer
