"""Step 9 for plain models: the output rail over an answer that is whole, or over one that streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

from mainstay.guard import StreamGuard
from mainstay.guard.types import Finding, Policy
from mainstay.models.types import Choice, Delta, ToolCall, ToolCallDelta
from mainstay.observe.types import Attr
from mainstay.serving.input_rail import INLINE_GUARD_CHARS
from mainstay.serving.run import Run
from mainstay.serving.types import finding_body


async def guard_whole(run: Run, policy: Policy) -> None:
    """Step 9 of an answer that is there already: masked or blocked before anyone reads it."""
    choices = run.choices()
    length = sum(len(c.text) + sum(len(t.arguments) for t in c.tool_calls) for c in choices)
    with run.trace.step("guard.output") as step:
        if length <= INLINE_GUARD_CHARS:
            checked = tuple(_checked(run, policy, choice) for choice in choices)
        else:
            checked = tuple([await asyncio.to_thread(_checked, run, policy, choice) for choice in choices])
        found = [finding_body(f) for f in run.findings if f.rail == "output"]
        step.set(Attr.GUARD, found or None)
    if checked != choices:
        run.whole, run.raw = checked, None
        run.cache = "bypass" if run.refused else run.cache


def _checked(run: Run, policy: Policy, choice: Choice) -> Choice:
    texts = (choice.text, choice.reasoning, *(call.arguments for call in choice.tool_calls))
    verdicts = [run.deps.guard.check(text, "output", policy) if text else None for text in texts]
    for verdict in verdicts:
        if verdict is not None:
            run.findings.extend(verdict.findings)
    if any(verdict is not None and verdict.action == "block" for verdict in verdicts):
        run.refused = True
        return Choice(text=policy.blocked_message, finish_reason="content_filter")
    said = [text if verdict is None else verdict.text for text, verdict in zip(texts, verdicts, strict=True)]
    if said == list(texts):
        return choice
    calls = tuple(
        ToolCall(call.id, call.name, arguments)
        for call, arguments in zip(choice.tool_calls, said[2:], strict=True)
    )
    # A block of thinking says again what was masked in the reasoning, and its signature is of those very words.
    masked = said[1] != choice.reasoning
    thinking = tuple(t for t in choice.thinking if not masked or not t.text)
    return replace(choice, text=said[0], reasoning=said[1], tool_calls=calls, thinking=thinking, logprobs=())


async def guard_stream(
    run: Run, policy: Policy, deltas: AsyncGenerator[Delta, None]
) -> AsyncGenerator[Delta, None]:
    """Step 9 while the answer streams: what a check may still object to is held back, the rest passes at once.

    A tool call's arguments are held until they are whole and judged.
    """
    with run.trace.step("guard.output") as step:
        rails = OutputRails(run, policy)
        try:
            async for delta in deltas:
                for passed in rails.feed(delta):
                    yield passed
                if rails.blocked:
                    run.refused, run.finish_reason = True, "content_filter"
                    gap = "\n\n" if run.has_shown else ""
                    yield Delta(text=f"{gap}{policy.blocked_message}", finish_reason="content_filter")
                    return
        finally:
            run.findings.extend(rails.findings)
            step.set(Attr.GUARD, [finding_body(f) for f in rails.findings] or None)


class OutputRails:
    """The output rail of one streamed answer, over every choice's text, reasoning and tool calls."""

    def __init__(self, run: Run, policy: Policy) -> None:
        self._guard = run.deps.guard
        self._policy = policy
        self._texts: dict[tuple[int, str], StreamGuard] = {}
        self._calls: dict[tuple[int, int], list[ToolCallDelta]] = {}
        self._own: list[Finding] = []
        self._model: str | None = None
        """What a delta called it of which nothing was shown: the next one says so."""
        self._numbered = run.request.surface == "messages"
        """Whether events of the stream tell which block they belong to, so that none can pass by those held back."""
        self._behind = False
        """Whether anything was held back or changed so far."""
        self.blocked = False

    @property
    def findings(self) -> list[Finding]:
        return [*self._own, *(f for text in self._texts.values() for f in text.findings)]

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What may be shown now of this delta and of what was held before it."""
        shown = self._judge(delta)
        if self.blocked:
            return
        if shown is not delta:
            self._behind = True
        elif self._behind and self._numbered and delta.raw is not None:
            shown = replace(delta, raw=None)
        if shown is not delta and not _says_something(shown):
            self._model = shown.model or self._model
            return
        if self._model is not None:
            shown, self._model = replace(shown, model=shown.model or self._model), None
        yield shown

    def _judge(self, delta: Delta) -> Delta:
        """The delta itself when all of it passes at once and nothing else does."""
        ends, index = delta.finish_reason is not None, delta.index
        # When another kind of content begins, the one before is whole.
        reasoning_ends = ends or bool(delta.text or delta.tool_calls or delta.thinking is not None)
        reasoning, masked = self._passed(index, "reasoning", delta.reasoning, reasoning_ends)
        text, _ = self._passed(index, "text", delta.text, ends or bool(delta.tool_calls))
        calls = self._passed_calls(delta, ends)
        thinking = delta.thinking
        if masked and thinking is not None and thinking.text:
            thinking = None  # it says again what was masked, and its signature is of those very words
        if (text, reasoning, calls, thinking) == (
            delta.text,
            delta.reasoning,
            delta.tool_calls,
            delta.thinking,
        ):
            return delta
        return replace(
            delta,
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            thinking=thinking,
            raw=None,
            logprobs=delta.logprobs if text == delta.text else (),
        )

    def _passed(self, index: int, what: str, piece: str, ends: bool) -> tuple[str, bool]:
        """(what may be shown, whether anything of this text was masked)"""
        guarded = self._texts.get((index, what))
        if guarded is None:
            if not piece:
                return "", False
            guarded = self._texts[(index, what)] = StreamGuard(self._guard, self._policy)
        shown = guarded.feed(piece) if piece else ""
        if ends:
            shown += guarded.finish()
            self._own.extend(self._texts.pop((index, what)).findings)
        self.blocked = self.blocked or guarded.blocked
        return shown, any(finding.action != "flag" for finding in guarded.findings)

    def _passed_calls(self, delta: Delta, ends: bool) -> tuple[ToolCallDelta, ...]:
        """Whole calls, once nothing more can come for them: a new call began, or the answer ended."""
        for piece in delta.tool_calls:
            self._calls.setdefault((delta.index, piece.index), []).append(piece)
        held = [key for key in self._calls if key[0] == delta.index]
        newest = max((key[1] for key in held), default=-1)
        done = [key for key in held if ends or key[1] < newest]
        return tuple(call for key in sorted(done) for call in self._judged(self._calls.pop(key)))

    def _judged(self, pieces: list[ToolCallDelta]) -> list[ToolCallDelta]:
        arguments = "".join(piece.arguments for piece in pieces)
        verdict = self._guard.check(arguments, "output", self._policy)
        self._own.extend(verdict.findings)
        if verdict.action == "block":
            self.blocked = True
            return []
        if verdict.text == arguments:
            return pieces
        return [replace(pieces[0], arguments=verdict.text)]


def _says_something(delta: Delta) -> bool:
    return bool(
        delta.text
        or delta.reasoning
        or delta.tool_calls
        or delta.refusal
        or delta.logprobs
        or delta.thinking is not None
        or delta.finish_reason is not None
        or delta.usage is not None
    )
