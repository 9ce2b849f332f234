"""OpenAI's legacy `POST /v1/completions`.

The prompt becomes one message of a user, and the answer's text comes back as the completion: models of
today are asked as chat models only. What that cannot do is refused: a continuation with a `suffix`, the
prompt's `echo`, `best_of` choices judged by log-probabilities, and `logprobs` in the older form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from mainstay.models.types import ChatCall, ChatMessage, Choice, Delta
from mainstay.serving.errors import BadField, ErrorReply
from mainstay.serving.surfaces import common
from mainstay.serving.surfaces.chat_body import usage_body
from mainstay.serving.surfaces.chat_read import CALL_FIELDS, ROUTING, refuse_routing, stream_options
from mainstay.serving.surfaces.chat_stream import DONE
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Started, SurfaceName
from mainstay.serving.types import Final as FinalAnswer

_SHARED: Final = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "seed",
    "n",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "user",
)
"""Fields that mean the same as in a chat."""

_TO_CHAT: Final = "Use /v1/chat/completions."


class CompletionsSurface:
    """See Surface."""

    name: SurfaceName = "completions"

    def read(self, body: Mapping[str, Any]) -> ChatRequest:
        asked: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in body.items():
            if value is None:
                continue
            reader = _FIELDS.get(name)
            if reader is None:
                extra[name] = common.bounded(value, name)
            else:
                asked[name] = reader(value, name)
        for name in ("model", "prompt"):
            if name not in asked:
                raise BadField(name, "is required.")
        shared = {name: asked[name] for name in _SHARED if asked.get(name) not in (None, {})}
        message = ChatMessage("user", asked["prompt"])
        # Fields of OpenAI-compatible servers are called the same in a chat, so such a server is sent them.
        call = ChatCall("", (message,), extra=extra, source_format="openai.chat", **shared)
        return ChatRequest(
            asked["model"],
            call,
            stream=asked.get("stream", False),
            include_usage=asked.get("stream_options", False),
            metadata=asked.get("metadata", {}),
            surface="completions",
        )

    def whole(self, final: FinalAnswer, request: ChatRequest, ids: Ids) -> bytes:
        return orjson.dumps(
            {
                "id": f"cmpl-{ids.trace_id}",
                "object": "text_completion",
                "created": ids.created_s,
                "model": common.answering_name(final, request),
                "choices": [_choice(i, _said(c), _reason(c)) for i, c in enumerate(final.choices)],
                "usage": usage_body(final.usage),
                "mainstay": final.extension(),
            }
        )

    def stream(self, request: ChatRequest, ids: Ids) -> CompletionsStream:
        return CompletionsStream(request, ids)

    def error_body(self, reply: ErrorReply) -> dict[str, Any]:
        return {"error": common.renamed(reply.body["error"], {"messages": "prompt"})}


class CompletionsStream:
    """Renders one answer as `text_completion` chunks; see StreamRenderer. A provider's own chunks are in the
    form of chat, so they are never relayed."""

    ping = b": ping\n\n"

    def __init__(self, request: ChatRequest, ids: Ids) -> None:
        self._request = request
        self._ids = ids
        self._model: str | None = None
        self._fallback = request.model
        self._head = b""

    def start(self, started: Started) -> bytes:
        self._model = self._request.model if started.release is not None else None
        self._fallback = started.model
        return b""

    def delta(self, delta: Delta) -> bytes:
        if not self._head:
            self._open(delta.model)
        said = delta.text + delta.refusal
        return self._chunk([_choice(delta.index, said, None)]) if said else b""

    def end(self, final: FinalAnswer) -> bytes:
        """A last chunk for each choice, with the `mainstay` object in the very last one, then usage if asked."""
        if not self._head:
            self._open(final.response_model)
        frames = [self._chunk([_choice(i, "", _reason(c))]) for i, c in enumerate(final.choices[:-1])]
        if final.choices:
            last = _choice(len(final.choices) - 1, "", _reason(final.choices[-1]))
            frames.append(self._chunk([last], mainstay=final.extension()))
        if self._request.include_usage:
            frames.append(self._chunk([], usage=usage_body(final.usage)))
        return b"".join((*frames, DONE))

    def error(self, reply: ErrorReply) -> bytes:
        return common.data_frame(orjson.dumps(reply.body))

    def _open(self, model: str | None) -> None:
        base = {
            "id": f"cmpl-{self._ids.trace_id}",
            "object": "text_completion",
            "created": self._ids.created_s,
            "model": self._model or model or self._fallback,
        }
        self._head = orjson.dumps(base)[:-1] + b","

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        if self._request.include_usage:
            more.setdefault("usage", None)
        return b"".join((b"data: ", self._head, orjson.dumps({"choices": choices, **more})[1:], b"\n\n"))


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _said(choice: Choice) -> str:
    """A refusal is what the model said, so it is text."""
    return choice.text + choice.refusal


def _reason(choice: Choice) -> str:
    """This form knows no tools, so none are asked for and none can be the reason."""
    return "stop" if choice.finish_reason == "tool_calls" else choice.finish_reason


def _prompt(value: Any, where: str) -> str:
    prompts = value if isinstance(value, list) else [value]
    if len(prompts) == 1 and isinstance(prompts[0], str):
        return common.text(prompts[0], where)
    if prompts and all(isinstance(prompt, str) for prompt in prompts):
        raise BadField(where, f"holds {len(prompts)} prompts.", fix="Send one request for each of them.")
    raise BadField(where, "must be a string: prompts of token ids are not supported.", fix="Send the text.")


def _only(*neutral: Any) -> Callable[[Any, str], None]:
    """Accepts the values that ask for nothing."""

    def read(value: Any, where: str) -> None:
        if not any(value == one and type(value) is type(one) for one in neutral):
            raise BadField(where, "is not supported here.", fix=_TO_CHAT)

    return read


_FIELDS: Final[Mapping[str, common.Reader]] = {
    **{name: CALL_FIELDS[name] for name in _SHARED},
    **dict.fromkeys(ROUTING, refuse_routing),
    "model": common.model_name,
    "prompt": _prompt,
    "stream": common.flag,
    "stream_options": stream_options,
    "metadata": common.mapping,
    "suffix": _only(""),
    "echo": _only(False),
    "best_of": _only(1),
    "logprobs": _only(0, False),
}
