"""What Bedrock Converse answers: events, messages, usage and errors. Pure but for a stream's state.

Source: Amazon Bedrock API reference, "Converse", "ConverseStream" and its errors (service model 2023-09-30, as of
2026-08). Errors are told apart by their name; by text only where one name stands for two things.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

import orjson

from mainstay.models.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
)
from mainstay.models.providers.answers import Malformed, count_of, json_object, text_of
from mainstay.models.providers.aws_eventstream import EventMessage
from mainstay.models.providers.refusals import kind_of_status, refusal, retry_after_s
from mainstay.models.types import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    Thinking,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_SENSELESS: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Stop reasons that say that the model's output made no sense."""


class ConverseStream:
    """One streamed answer: feed it messages of the event stream. `finished` after `messageStop`."""

    def __init__(self, provider: str) -> None:
        self.finished = False
        self.usage: Usage | None = None
        self._provider = provider
        self._blocks: dict[int, _Block] = {}
        self._tools = 0

    def take(self, message: EventMessage) -> Delta | None:
        """None for what says nothing in the normal form. Raises Malformed, and the ProviderError of an exception."""
        if message.text(":message-type") in ("exception", "error"):
            raise self._exception(message)
        kind = message.text(":event-type")
        event = json_object(message.payload or b"{}")
        if kind == "contentBlockDelta":
            return self._grow(event)
        if kind == "contentBlockStart":
            return self._begin(event)
        if kind == "contentBlockStop":
            return self._end(event)
        if kind == "messageStop":
            self.finished = True
            return Delta(finish_reason=finish_reason(event.get("stopReason")))
        if kind == "metadata":
            self.usage = decode_usage(event.get("usage"))
            return Delta(usage=self.usage) if self.usage is not None else None
        return None

    def _begin(self, event: Mapping[str, Any]) -> Delta | None:
        start = event.get("start")
        tool = start.get("toolUse") if isinstance(start, dict) else None
        if not isinstance(tool, dict) or tool.get("type") == "server_tool_use":
            return None
        block = self._block(event)
        block.tool, self._tools = self._tools, self._tools + 1
        return Delta(
            tool_calls=(ToolCallDelta(block.tool, str(tool.get("toolUseId")), str(tool.get("name"))),)
        )

    def _grow(self, event: Mapping[str, Any]) -> Delta | None:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            raise Malformed("a contentBlockDelta without its delta")
        block = self._block(event)
        if isinstance(delta.get("text"), str):
            return Delta(text=delta["text"]) if delta["text"] else None
        if isinstance(delta.get("toolUse"), dict) and block.tool is not None:
            piece = block.grown(text_of(delta["toolUse"], "input"))
            return Delta(tool_calls=(ToolCallDelta(block.tool, arguments=piece),)) if piece else None
        if isinstance(delta.get("reasoningContent"), dict):
            piece = block.reason(delta["reasoningContent"])
            return Delta(reasoning=piece) if piece else None
        return None

    def _end(self, event: Mapping[str, Any]) -> Delta | None:
        block = self._block(event)
        if block.thinks:
            return Delta(thinking=block.thinking())
        if block.tool is not None and not block.pieces:  # a call without arguments streams none
            return Delta(tool_calls=(ToolCallDelta(block.tool, arguments="{}"),))
        return None

    def _block(self, event: Mapping[str, Any]) -> _Block:
        index = event.get("contentBlockIndex")
        if not isinstance(index, int):
            raise Malformed("an event of a content block without its index")
        return self._blocks.setdefault(index, _Block())

    def _exception(self, message: EventMessage) -> ProviderError:
        name = message.text(":exception-type") or message.text(":error-code")
        body = message.payload
        if message.text(":error-message"):
            body = orjson.dumps({"message": message.text(":error-message")})
        return decode_error(self._provider, None, body, {"x-amzn-errortype": name[:1].upper() + name[1:]})


class _Block:
    """A content block that is being streamed; text and reasoning blocks begin with their first delta."""

    __slots__ = ("pieces", "redacted", "signature", "thinks", "tool")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.redacted = b""
        self.signature: str | None = None
        self.thinks = False
        self.tool: int | None = None

    def grown(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece

    def reason(self, content: Mapping[str, Any]) -> str:
        """Take a piece of reasoning; gives what of it is to be seen."""
        self.thinks = True
        self.signature = text_of(content, "signature") or self.signature
        redacted = content.get("redactedContent")
        if isinstance(redacted, str):
            try:
                self.redacted += b64decode(redacted, validate=True)
            except ValueError as error:
                raise Malformed("redacted reasoning that is no base64") from error
        return self.grown(text_of(content, "text"))

    def thinking(self) -> Thinking:
        if self.redacted:
            return Thinking(encrypted=b64encode(self.redacted).decode())
        return Thinking("".join(self.pieces), self.signature)


def finish_reason(stop_reason: object) -> FinishReason:
    """Unknown reasons, which may be added to the API, count as `stop`. Raises Malformed for a senseless output."""
    if stop_reason in _SENSELESS:
        raise Malformed(f"stopped with {stop_reason}")
    return _FINISH.get(str(stop_reason), "stop")


def decode_answer(body: bytes) -> Completion:
    """The answer of Converse. Raises Malformed."""
    answer = json_object(body)
    try:
        content = answer["output"]["message"]["content"]
        blocks: list[dict[str, Any]] = [dict(block) for block in content]
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("no output with a message of content blocks") from error
    thinking = tuple(
        _thought(b["reasoningContent"]) for b in blocks if isinstance(b.get("reasoningContent"), dict)
    )
    calls = [b["toolUse"] for b in blocks if isinstance(b.get("toolUse"), dict)]
    choice = Choice(
        text="".join(text_of(block, "text") for block in blocks),
        finish_reason=finish_reason(answer.get("stopReason")),
        reasoning="".join(thought.text for thought in thinking),
        thinking=thinking,
        tool_calls=tuple(
            ToolCall(
                str(call.get("toolUseId")),
                str(call.get("name")),
                orjson.dumps(call.get("input") or {}).decode(),
            )
            for call in calls
            if call.get("type") != "server_tool_use"
        ),
    )
    return Completion((choice,), decode_usage(answer.get("usage")))


def _thought(content: Mapping[str, Any]) -> Thinking:
    if isinstance(content.get("redactedContent"), str):
        return Thinking(encrypted=content["redactedContent"])
    text = content.get("reasoningText")
    text = text if isinstance(text, dict) else {}
    return Thinking(text_of(text, "text"), text.get("signature"))


def decode_usage(usage: object) -> Usage | None:
    """Normal form of a `usage` object, whose `inputTokens` leave out what the cache gave and took."""
    if not isinstance(usage, dict):
        return None
    plain, output = count_of(usage, "inputTokens"), count_of(usage, "outputTokens")
    if plain is None or output is None:
        return None
    read = count_of(usage, "cacheReadInputTokens") or 0
    written = count_of(usage, "cacheWriteInputTokens") or 0
    details = usage.get("cacheDetails")
    hour = sum(
        count_of(detail, "inputTokens") or 0
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict) and detail.get("ttl") == "1h"
    )
    return Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(hour, written),
    )


_ERRORS: Final[Mapping[str, tuple[int, type[ProviderError]]]] = {
    "ValidationException": (400, ProviderBadRequest),
    "ServiceQuotaExceededException": (400, ProviderQuotaExhausted),
    "AccessDeniedException": (403, ProviderAuthFailed),
    "UnrecognizedClientException": (403, ProviderAuthFailed),
    "InvalidSignatureException": (403, ProviderAuthFailed),
    "ExpiredTokenException": (403, ProviderAuthFailed),
    "IncompleteSignatureException": (403, ProviderAuthFailed),
    "MissingAuthenticationTokenException": (403, ProviderAuthFailed),
    "ResourceNotFoundException": (404, ProviderModelMissing),
    "ModelTimeoutException": (408, ProviderTimeout),
    "ModelErrorException": (424, ProviderError),
    "ModelStreamErrorException": (424, ProviderError),
    "ThrottlingException": (429, ProviderRateLimited),
    "ModelNotReadyException": (429, ProviderError),
    "InternalServerException": (500, ProviderError),
    "ServiceUnavailableException": (503, ProviderError),
}
"""Exception → its documented status, for those inside a stream that have none, and what it is here."""

_TOO_LONG: Final = (
    "Input is too long for requested model",
    "The model returned the following errors: prompt is too long:",
    "The model returned the following errors: Input is too long for requested model",
)
"""How the ValidationException begins that tells of a prompt beyond the context window: it has no name of its own."""

_FIXES: Final[Mapping[type[ProviderError], str]] = {
    ProviderAuthFailed: "Check the AWS credentials, their permission to invoke the model, and the access to it.",
    ProviderQuotaExhausted: "Raise the service quota in AWS, or route to another provider.",
    ProviderModelMissing: "Check the model's id and that the region has it.",
}


def decode_error(provider: str, status: int | None, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The ProviderError of an error answer. `status` None: it came inside a stream, and its name says the status."""
    error = _error_object(body)
    name = (
        (headers.get("x-amzn-errortype") or str(error.get("__type") or "")).split(":")[0].rpartition("#")[2]
    )
    known_status, kind = _ERRORS.get(name, (500, None))
    status = known_status if status is None else status
    kind = kind or kind_of_status(status)
    said = str(error.get("message") or error.get("Message") or "").strip()
    if kind is ProviderBadRequest and said.startswith(_TOO_LONG):
        kind = ContextTooLong
    return refusal(
        kind,
        provider,
        status,
        " ".join(filter(None, (name, said))),
        code=name or None,
        fix=_FIXES.get(kind),
        wait_s=retry_after_s(headers),
    )


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
