"""Meters every call to a model: its span, its tokens, its cost. What was paid for a call that failed counts, too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mainstay.models import (
    ProviderStreamBroken,
    ProviderTimeout,
    cost_nusd,
    estimate_usage,
)
from mainstay.models.collect import Collector
from mainstay.models.types import ChatCall, ChatMessage, Choice, Completion, Delta, MediaPart, Target, Usage
from mainstay.observe import Step, TraceBuilder
from mainstay.observe.types import Attr
from mainstay.serving.admission import price_for
from mainstay.serving.errors import DeadlineExceeded
from mainstay.serving.routing.types import Attempt

_NOTHING = Usage(0, 0)
MAY_BE_BILLED = (ProviderTimeout, ProviderStreamBroken, DeadlineExceeded)
"""Failures after which a provider may have worked, and charge for it."""


class MeteredCall:
    """One call to a provider. Cut short, it costs its input and what it said until then."""

    __slots__ = (
        "_closed", "_cost_nusd", "_usage", "call", "completion", "pieces", "said", "step", "target", "unbilled",
    )  # fmt: skip

    def __init__(self, target: Target, call: ChatCall, step: Step) -> None:
        self.target = target
        self.call = call
        self.step = step
        self.said = Collector()
        self.pieces = 0
        self.completion: Completion | None = None
        self.unbilled = False
        self._usage: Usage | None = None
        self._cost_nusd: int | None = None
        self._closed = False

    def take(self, delta: Delta) -> None:
        self.said.take(delta)
        self.pieces += 1

    @property
    def usage(self) -> Usage:
        """The provider's own count; ours, marked as estimated, when it gave none."""
        if self._usage is None:
            told = self.completion.usage if self.completion is not None else self.said.usage
            if told is not None and (self.completion is not None or self.said.finished):
                return told
            if told is not None:  # of a moment before it was cut off
                counted = self._counted()
                written = max(told.output_tokens, counted.output_tokens)
                return replace(told, output_tokens=written, estimated=True)
            if self.unbilled:
                return _NOTHING
            return self._counted()
        return self._usage

    def _counted(self) -> Usage:
        """A count of what was said: one token a piece at least, as providers stream by the token."""
        choices = self.said.choices() if self.completion is None else self.completion.choices
        usage = estimate_usage(self.call, "".join(map(_written, choices)))
        written = max(usage.output_tokens, self.pieces)
        return Usage(usage.input_tokens, written, estimated=True)

    @property
    def text(self) -> str:
        """Of the first choice."""
        if self.completion is not None and self.completion.choices:
            return self.completion.choices[0].text
        return self.said.text

    def close(self) -> None:
        """No more will come: what was used and what it cost are counted for good."""
        usage = self._usage = self.usage
        self._cost_nusd = self._cost_of(usage)
        self._closed = True

    @property
    def cost_nusd(self) -> int | None:
        return self._cost_nusd if self._closed else self._cost_of(self.usage)

    def _cost_of(self, usage: Usage) -> int | None:
        if self.unbilled and self.said.usage is None:
            return 0
        price = price_for(self.call, self.target)
        return None if price is None else cost_nusd(usage, price)


class Meter:
    """All calls of one request; routing's Observer."""

    __slots__ = ("_began_s", "_open", "_trace", "calls", "waited_ms", "with_messages")

    def __init__(self, trace: TraceBuilder) -> None:
        self.calls: list[MeteredCall] = []
        self.waited_ms = 0.0
        self.with_messages = False
        """Whether each call's span holds its messages: an app's differ from what its caller sent."""
        self._trace = trace
        self._open: dict[int, MeteredCall] = {}
        self._began_s = 0.0

    @property
    def current(self) -> MeteredCall:
        return self.calls[-1]

    @property
    def cost_nusd(self) -> int | None:
        """Of all calls together; None when the price of any is unknown."""
        calls = self.calls
        if len(calls) == 1:
            return calls[0].cost_nusd
        total = 0
        for call in calls:
            cost = call.cost_nusd
            if cost is None:
                return None
            total += cost
        return total

    @property
    def known_cost_nusd(self) -> int:
        """Of the calls whose price is known: what failed attempts have cost so far."""
        return sum([call.cost_nusd or 0 for call in self.calls]) if self.calls else 0

    @property
    def usage(self) -> Usage:
        if len(self.calls) == 1:
            return self.calls[0].usage
        return total_usage([call.usage for call in self.calls])

    @property
    def model(self) -> str | None:
        """The name that the provider gave of the model which answered."""
        if not self.calls:
            return None
        call = self.calls[-1]
        return call.completion.model if call.completion is not None else call.said.model

    def began(self, attempt: Attempt, call: ChatCall) -> None:
        step = self._trace.step(f"chat {attempt.target.model}", "client")
        metered = MeteredCall(attempt.target, call, step)
        self.calls.append(metered)
        self._open[id(attempt)] = metered
        self._began_s = time.perf_counter()
        _describe_call(step, attempt.target, call)
        if self.with_messages:
            step.set(Attr.INPUT_MESSAGES, message_bodies(call.messages))

    def ended(self, attempt: Attempt) -> None:
        metered = self._open.pop(id(attempt))
        self.waited_ms += (time.perf_counter() - self._began_s) * 1000
        error = attempt.error
        metered.completion = attempt.completion
        if error is not None:
            metered.step.fail(error)
            # Refused or not reached, nothing was made that could be billed; silence and a cut may have been.
            heard = bool(metered.pieces) or isinstance(error, MAY_BE_BILLED)
            metered.unbilled = not heard
        metered.close()
        if attempt.ttft_s is not None:
            metered.step.set(Attr.TTFT_MS, round(attempt.ttft_s * 1000, 3))
        _describe_result(metered)
        if self.with_messages:
            metered.step.set(Attr.OUTPUT_MESSAGES, [{"role": "assistant", "content": metered.text}])
        metered.step.end()


def _written(choice: Choice) -> str:
    """Everything that a model wrote for one choice."""
    calls = [f"{call.name}{call.arguments}" for call in choice.tool_calls]
    return "".join((choice.text, choice.reasoning, choice.refusal, *calls))


def total_usage(found: Sequence[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(u.input_tokens for u in found),
        output_tokens=sum(u.output_tokens for u in found),
        cached_input_tokens=sum(u.cached_input_tokens for u in found),
        reasoning_tokens=sum(u.reasoning_tokens for u in found),
        estimated=any(u.estimated for u in found),
        cache_write_tokens=sum(u.cache_write_tokens for u in found),
        cache_write_1h_tokens=sum(u.cache_write_1h_tokens for u in found),
        audio_input_tokens=sum(u.audio_input_tokens for u in found),
        audio_output_tokens=sum(u.audio_output_tokens for u in found),
    )


def _describe_call(step: Step, target: Target, call: ChatCall) -> None:
    step.set(Attr.OPERATION, "chat")
    step.set(Attr.PROVIDER, target.provider.name)
    step.set(Attr.REQUEST_MODEL, target.model)
    step.set("gen_ai.request.temperature", call.temperature)
    step.set("gen_ai.request.max_tokens", call.max_tokens)
    step.set("gen_ai.request.seed", call.seed)
    step.set("mainstay.credential", target.credential)


def _describe_result(call: MeteredCall) -> None:
    usage, step = call.usage, call.step
    step.set(Attr.INPUT_TOKENS, usage.input_tokens)
    step.set(Attr.OUTPUT_TOKENS, usage.output_tokens)
    if usage.cached_input_tokens or usage.cache_write_tokens:
        step.set("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens)
        step.set("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens)
    if usage.reasoning_tokens:
        step.set("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
    step.set("mainstay.usage.estimated", usage.estimated)
    step.set(Attr.COST_NUSD, call.cost_nusd)


def message_bodies(messages: Sequence[ChatMessage]) -> list[Any]:
    """Messages as a trace records them. Media are named, not stored: they may be megabytes."""
    return [_message_body(m) for m in messages]


def _message_body(message: ChatMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    media = [_media_label(part) for part in message.parts if isinstance(part, MediaPart)]
    if media:
        body["media"] = media
    return body


def _media_label(part: MediaPart) -> str:
    size = "" if part.data is None else f", {len(part.data) * 3 // 4} bytes"
    where = "" if part.url is None or part.url.startswith("data:") else f", {part.url}"
    return f"{part.kind} {part.media_type or ''}{size}{where}".strip()
