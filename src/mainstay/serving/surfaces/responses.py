"""OpenAI's Responses API: reads requests, writes responses whole or as events.

Sources: OpenAI API reference ("Responses", "Streaming events") as of the types of openai-python 3.54, and the
Open Responses specification, which asks for `[DONE]` after the last event and for `response.failed` after an
`error` event. A response's id is `resp_`, the trace id and 16 digits of the request id: several requests of
one distributed trace share its trace id, and each response has to be found by its own.

A provider's own body is never passed through: its ids would name what is kept elsewhere, if at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from mainstay.models.types import Choice, Delta, Usage
from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.common import renamed
from mainstay.serving.surfaces.responses_items import Event
from mainstay.serving.surfaces.responses_output import Output
from mainstay.serving.surfaces.responses_request import read_request
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Final, Started, SurfaceName

HIDDEN_REASONING: Literal["reasoning.encrypted_content"] = "reasoning.encrypted_content"
"""The value of `include` that asks for hidden reasoning."""

_FIELDS = {
    "logprobs": "top_logprobs",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
"""What this API calls fields of the normal form that a refusal may name."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesSurface:
    """Stateless. `read` refuses what needs kept responses; `ResponsesService.prepare` resolves it."""

    name: SurfaceName = "responses"

    def read(self, body: Mapping[str, Any]) -> ChatRequest:
        return read_request(body)

    def whole(self, final: Final, request: ChatRequest, ids: Ids) -> bytes:
        return self.encode(self.response(final, request, ids), request)

    def encode(self, response: Mapping[str, Any], request: ChatRequest) -> bytes:
        return orjson.dumps(shown(response, request))

    def response(self, final: Final, request: ChatRequest, ids: Ids) -> dict[str, Any]:
        """The response object with all that is kept of it; `shown` gives what its caller asked to see."""
        output = _output(request, ids)
        output.finish(_choice(final))
        return finished_body(final, request, ids, output.bodies(secret=True))

    def stream(self, request: ChatRequest, ids: Ids) -> ResponsesStream:
        return ResponsesStream(request, ids)

    def error_body(self, reply: ErrorReply) -> dict[str, Any]:
        return {"error": renamed(reply.body["error"], _FIELDS)}


class ResponsesStream:
    """One response as events, each with its `sequence_number`.

    `end(final)` is `close(final)` and `terminal(response)` in one: who keeps responses does so between them.
    """

    ping = b": ping\n\n"

    def __init__(self, request: ChatRequest, ids: Ids) -> None:
        self._request = request
        self._ids = ids
        self._sequence = 0
        self._output = _output(request, ids)

    def start(self, started: Started) -> bytes:
        return self._begin()

    def delta(self, delta: Delta) -> bytes:
        return self._frames(self._output.take(delta))

    def end(self, final: Final) -> bytes:
        return self.close(final) + self.terminal(self.response(final))

    def close(self, final: Final) -> bytes:
        """The end of every item; only the terminal event is still to come."""
        begun = self._begin() if self._sequence == 0 else b""
        return begun + self._frames(self._output.finish(_choice(final)))

    def response(self, final: Final) -> dict[str, Any]:
        """The whole response, once closed, with all that is kept of it."""
        return finished_body(final, self._request, self._ids, self._output.bodies(secret=True))

    def terminal(self, response: Mapping[str, Any]) -> bytes:
        body = shown(response, self._request)
        return self._frame(f"response.{body['status']}", {"response": body}) + b"data: [DONE]\n\n"

    def error(self, reply: ErrorReply) -> bytes:
        """`error` in OpenAI's flat form and in the nested one, at which SDKs raise; then `response.failed`."""
        begun = self._begin() if self._sequence == 0 else b""
        said = reply.body["error"]
        flat = {"code": said.get("code"), "message": said.get("message"), "param": said.get("param")}
        self._output.abandon()
        failed = response_body(self._request, self._ids, "failed", self._output.bodies(secret=True))
        failed["error"] = {"code": said.get("code"), "message": said.get("message")}
        failed |= {"store": False, "mainstay": said.get("mainstay")}
        return (
            begun
            + self._frame("error", {**flat, "error": said})
            + self._frame("response.failed", {"response": shown(failed, self._request)})
        )

    def _begin(self) -> bytes:
        body = response_body(self._request, self._ids, "in_progress", [])
        created = self._frame("response.created", {"response": body})
        return created + self._frame("response.in_progress", {"response": body})

    def _frames(self, events: list[Event]) -> bytes:
        return b"".join(self._frame(name, fields) for name, fields in events)

    def _frame(self, name: str, fields: dict[str, Any]) -> bytes:
        data = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def response_key(ids: Ids) -> str:
    """What a response's id and its items' ids have in common."""
    return ids.trace_id + ids.request_id.rpartition("_")[2][-16:]


def shown(response: Mapping[str, Any], request: ChatRequest) -> dict[str, Any]:
    """The response as its request asked to see it: hidden reasoning only when it was included."""
    return {**response, "output": shown_items(response["output"], secret=shows_secret(request))}


def shows_secret(request: ChatRequest) -> bool:
    return HIDDEN_REASONING in request.hints.get("include", ())


def shown_items(items: list[dict[str, Any]], *, secret: bool) -> list[dict[str, Any]]:
    if secret:
        return items
    return [{name: value for name, value in item.items() if name != "encrypted_content"} for item in items]


def finished_body(
    final: Final, request: ChatRequest, ids: Ids, output: list[dict[str, Any]]
) -> dict[str, Any]:
    reason = _INCOMPLETE.get(final.finish_reason)
    body = response_body(request, ids, "incomplete" if reason else "completed", output)
    if reason:
        body["incomplete_details"] = {"reason": reason}
    else:
        body["completed_at"] = ids.created_s + int(final.latency_ms / 1000)
    return body | {"usage": usage_body(final.usage), "mainstay": final.extension()}


def response_body(
    request: ChatRequest,
    ids: Ids,
    status: Literal["in_progress", "completed", "incomplete", "failed"],
    output: list[dict[str, Any]],
) -> dict[str, Any]:
    """The response object with every field that Open Responses requires; unset sampling shows OpenAI's defaults."""
    call, told = request.call, request.hints
    return {
        "id": f"resp_{response_key(ids)}",
        "object": "response",
        "created_at": ids.created_s,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": told.get("instructions"),
        "max_output_tokens": call.max_tokens,
        "max_tool_calls": told.get("max_tool_calls"),
        "model": request.model,
        "output": output,
        "parallel_tool_calls": call.parallel_tool_calls is not False,
        "presence_penalty": call.presence_penalty or 0.0,
        "frequency_penalty": call.frequency_penalty or 0.0,
        "previous_response_id": told.get("previous_response_id"),
        "prompt_cache_key": told.get("prompt_cache_key"),
        "reasoning": told.get("reasoning"),
        "safety_identifier": told.get("safety_identifier"),
        "service_tier": told.get("service_tier", "default"),
        "store": told.get("store", False),
        "temperature": 1.0 if call.temperature is None else call.temperature,
        "text": told.get("text", {"format": {"type": "text"}}),
        "tool_choice": told.get("tool_choice", "auto"),
        "tools": told.get("tools", []),
        "top_logprobs": call.top_logprobs or 0,
        "top_p": 1.0 if call.top_p is None else call.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": call.user,
        "metadata": dict(request.metadata),
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _choice(final: Final) -> Choice:
    return final.choices[0] if final.choices else Choice()


def _output(request: ChatRequest, ids: Ids) -> Output:
    reasoning = request.call.reasoning
    as_summary = reasoning is not None and reasoning.summary is not None
    return Output(response_key(ids), as_summary=as_summary, shows_secret=shows_secret(request))
