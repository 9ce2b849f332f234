"""Answers from the cache, as this request's own and, when asked for, as a stream again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mainstay.models.types import Choice, Delta, ToolCallDelta
from mainstay.serving.cache import Cached
from mainstay.serving.run import Run
from mainstay.serving.types import Final


def replayed(run: Run, cached: Cached) -> Final:
    """It cost nothing, and this release's environment asked. What it cost when it was made is saved."""
    found = cached.final
    return replace(
        found,
        cost_nusd=0,
        cost_source="cache",
        saved_nusd=found.cost_nusd,
        latency_ms=run.elapsed_ms,
        upstream_ms=0.0,
        trace_id=run.trace.trace_id,
        cache="hit",
        environment=None if run.runnable is None else run.runnable.environment,
        guard=(*run.findings, *(f for f in found.guard if f.rail != "input")),
        masked=run.masked,
        raw=found.raw if not run.request.stream else None,
    )


def choice_deltas(choices: Sequence[Choice], model: str | None) -> Iterator[Delta]:
    """A whole answer as a stream of a few large pieces."""
    for index, choice in enumerate(choices):
        yield from _choice_deltas(index, choice, model)


def _choice_deltas(index: int, choice: Choice, model: str | None) -> Iterator[Delta]:
    if choice.reasoning:
        yield Delta(index=index, reasoning=choice.reasoning, model=model)
    for thinking in choice.thinking:
        yield Delta(index=index, thinking=thinking, model=model)
    if choice.text or choice.logprobs:
        yield Delta(index=index, text=choice.text, logprobs=choice.logprobs, model=model)
    if choice.refusal:
        yield Delta(index=index, refusal=choice.refusal, model=model)
    for position, call in enumerate(choice.tool_calls):
        piece = ToolCallDelta(position, call.id, call.name, call.arguments)
        yield Delta(index=index, tool_calls=(piece,), model=model)
    yield Delta(
        index=index, finish_reason=choice.finish_reason, stop_sequence=choice.stop_sequence, model=model
    )
