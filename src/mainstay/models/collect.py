"""From deltas to a whole answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from mainstay.models.errors import ProviderStreamBroken
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


class Collector:
    """Takes deltas in any mix of choices and gives the finished choices."""

    __slots__ = ("_choices", "model", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self._choices: dict[int, _Growing] = {}

    def take(self, delta: Delta) -> None:
        if delta.usage is not None:
            self.usage = delta.usage
        if delta.model:
            self.model = delta.model
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Growing()
        choice.take(delta)

    @property
    def text(self) -> str:
        """Of the first choice, so far."""
        return "".join(self._choices[0].text) if 0 in self._choices else ""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Of the first choice; None while it goes on."""
        return self._choices[0].finish_reason if 0 in self._choices else None

    @property
    def finished(self) -> bool:
        """Whether every choice that began has come to its finish_reason."""
        return bool(self._choices) and all(c.finish_reason is not None for c in self._choices.values())

    def choices(self) -> tuple[Choice, ...]:
        return tuple(self._choices[index].choice() for index in sorted(self._choices))

    def completion(self) -> Completion:
        return Completion(self.choices(), self.usage, self.model)


class _Growing:
    __slots__ = (
        "_calls", "_logprobs", "_reasoning", "_refusal", "_stop_sequence", "_thinking", "finish_reason", "text",
    )  # fmt: skip

    def __init__(self) -> None:
        self.text: list[str] = []
        self.finish_reason: FinishReason | None = None
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._thinking: list[Thinking] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._calls: dict[int, tuple[list[str], list[str], list[str]]] = {}
        self._stop_sequence: str | None = None

    def take(self, delta: Delta) -> None:
        if delta.text:
            self.text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        if delta.thinking is not None:
            self._thinking.append(delta.thinking)
        if delta.logprobs:
            self._logprobs.extend(delta.logprobs)
        if delta.tool_calls:
            self._take_calls(delta.tool_calls)
        if delta.finish_reason:
            self.finish_reason = delta.finish_reason
        if delta.stop_sequence:
            self._stop_sequence = delta.stop_sequence

    def _take_calls(self, pieces: tuple[ToolCallDelta, ...]) -> None:
        for piece in pieces:
            ids, names, arguments = self._calls.setdefault(piece.index, ([], [], []))
            ids.extend([piece.id] if piece.id else [])
            names.extend([piece.name] if piece.name else [])
            arguments.append(piece.arguments)

    def choice(self) -> Choice:
        calls = tuple(
            ToolCall(ids[0] if ids else f"call_{index}", names[0] if names else "", "".join(arguments))
            for index, (ids, names, arguments) in sorted(self._calls.items())
        )
        return Choice(
            text="".join(self.text),
            finish_reason=self.finish_reason or "stop",
            reasoning="".join(self._reasoning),
            thinking=tuple(self._thinking),
            tool_calls=calls,
            logprobs=tuple(self._logprobs),
            refusal="".join(self._refusal),
            stop_sequence=self._stop_sequence,
        )


async def collect(stream: AsyncIterator[Delta], provider: str = "") -> Completion:
    """Read a stream to its end; closes it on every way out.

    Raises ProviderStreamBroken when a choice came to no finish_reason: it may be cut.
    """
    collector = Collector()
    async with aclosing(cast(AsyncGenerator[Delta, None], stream)) as deltas:
        async for delta in deltas:
            collector.take(delta)
    if not collector.finished:
        raise ProviderStreamBroken(
            f"{provider or 'The model'} stopped in the middle of its answer.", provider=provider
        )
    return collector.completion()
