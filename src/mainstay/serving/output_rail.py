"""Step 9 for plain models: the output rail over an answer that is whole, or over one that streams.

Text, refusals, visible reasoning, and names and arguments of tool calls are judged. Token log-probabilities spell
the same words again: they wait with the words they spell, and end where one is masked.
A provider's own body is relayed when what else is in it passes, too (`unread`); its events are written anew, as
each would have to be searched for words that nobody has read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from mainstay.guard import Guard, StreamGuard
from mainstay.guard.types import Finding, Policy, Verdict
from mainstay.models.types import Choice, Delta, Thinking, ToolCall, ToolCallDelta
from mainstay.observe.types import Attr
from mainstay.serving.input_rail import INLINE_GUARD_CHARS, INLINE_LOOK_CHARS
from mainstay.serving.json_text import check_json
from mainstay.serving.run import Run
from mainstay.serving.types import finding_body
from mainstay.serving.unread import may_relay


async def guard_whole(run: Run, policy: Policy) -> None:
    """Step 9 of an answer that is there already: masked or blocked before anyone reads it."""
    choices = run.choices()
    # Nothing of it is the caller's or the trace's until it was judged, not even when the judging is cut short.
    run.whole, raw, run.raw = (), run.raw, None
    checked = choices if _rules_out(choices, run.deps.guard, policy) else await _judged(run, policy, choices)
    run.whole = checked
    if checked != choices:
        run.cache = "bypass" if run.refused else run.cache
    elif raw is not None and may_relay(raw, lambda: _texts_of(choices), run.deps.guard, policy):
        run.raw = raw


def _rules_out(choices: tuple[Choice, ...], guard: Guard, policy: Policy) -> bool:
    """Whether no rule has anything to say of these choices: nearly always, told by one look at a short text alone.
    False also for what takes a closer look."""
    texts: list[str] = []
    for choice in choices:
        if choice.tool_calls:  # their arguments must be decoded
            return False
        texts += (choice.text, choice.reasoning, choice.refusal)
        if choice.thinking:
            texts += [block.text for block in choice.thinking]
    return sum(map(len, texts)) <= INLINE_LOOK_CHARS and guard.rules_out(texts, "output", policy)


async def _judged(run: Run, policy: Policy, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """The choices as they may be shown."""
    length = sum(len(c.text) + sum(len(t.arguments) for t in c.tool_calls) for c in choices)
    with run.trace.step("guard.output") as step:
        if length <= INLINE_GUARD_CHARS:
            checked = tuple([_checked(run, policy, choice) for choice in choices])
        else:
            checked = tuple([await asyncio.to_thread(_checked, run, policy, choice) for choice in choices])
        found = [finding_body(f) for f in run.findings if f.rail == "output"]
        if found:
            step.set(Attr.GUARD, found)
        else:
            step.leave_out()
    return checked


def _checked(run: Run, policy: Policy, choice: Choice) -> Choice:
    def check(text: str) -> Verdict:
        return run.deps.guard.check(text, "output", policy)

    texts = (
        *(choice.text, choice.reasoning, choice.refusal),
        *(block.text for block in choice.thinking),
        *(call.name for call in choice.tool_calls),
    )
    verdicts = [check(text) if text else None for text in texts]
    verdicts += [check_json(call.arguments, check) for call in choice.tool_calls]
    for verdict in verdicts:
        if verdict is not None:
            run.findings.extend(verdict.findings)
    if any(verdict is not None and verdict.action == "block" for verdict in verdicts):
        run.refused = True
        return Choice(text=policy.blocked_message, finish_reason="content_filter")
    before = [*texts, *(call.arguments for call in choice.tool_calls)]
    said = [text if v is None else v.text for text, v in zip(before, verdicts, strict=True)]
    if said == before:
        return choice
    count = len(choice.tool_calls)
    names, arguments = said[len(texts) - count : len(texts)], said[len(texts) :]
    calls = tuple(map(ToolCall, (call.id for call in choice.tool_calls), names, arguments))
    # A block of thinking says again what was masked in the reasoning, and its signature is of those very words.
    masked = said[1] != choice.reasoning
    blocks = zip(choice.thinking, said[3:], strict=False)
    thinking = tuple(t for t, shown in blocks if shown == t.text and (not masked or not t.text))
    return replace(
        choice,
        text=said[0],
        reasoning=said[1],
        refusal=said[2],
        tool_calls=calls,
        thinking=thinking,
        logprobs=(),
    )


def _texts_of(choices: tuple[Choice, ...]) -> set[str]:
    found: set[str] = set()
    for choice in choices:
        found |= {choice.text, choice.reasoning, choice.refusal}
        for call in choice.tool_calls:
            found |= {call.id, call.name, call.arguments}
        for block in choice.thinking:
            found |= _block_texts(block)
        found.update(str(item.get("token")) for item in choice.logprobs)
        found |= {str(top.get("token")) for item in choice.logprobs for top in item.get("top_logprobs") or ()}
    return found


def _block_texts(block: Thinking) -> set[str]:
    return {block.text, block.signature or "", block.encrypted or ""}


async def guard_stream(
    run: Run, policy: Policy, deltas: AsyncGenerator[Delta, None]
) -> AsyncGenerator[Delta, None]:
    """Step 9 while the answer streams: what a check may still object to is held back, the rest passes at once.
    Closes `deltas` when it ends.

    A tool call is held until it is whole and judged. What blocks one choice ends them all.
    """
    with run.trace.step("guard.output") as step:
        rails = OutputRails(run, policy)
        try:
            async for delta in deltas:
                passed = rails.feed(delta)
                if passed is not None:
                    yield passed
                if rails.blocked:
                    run.refused = True
                    gap = "\n\n" if run.has_shown else ""
                    for index in sorted(rails.open):
                        yield Delta(
                            text=f"{gap}{policy.blocked_message}",
                            index=index,
                            finish_reason="content_filter",
                        )
                    return
        finally:
            run.findings.extend(rails.findings)
            step.set(Attr.GUARD, [finding_body(f) for f in rails.findings] or None)
            await deltas.aclose()


class OutputRails:
    """The output rail of one streamed answer, over every choice's text, refusal, reasoning and tool calls."""

    def __init__(self, run: Run, policy: Policy) -> None:
        self._guard = run.deps.guard
        self._policy = policy
        self._texts: dict[tuple[int, str], StreamGuard] = {}
        self._calls: dict[tuple[int, int], list[ToolCallDelta]] = {}
        self._own: list[Finding] = []
        self._model: str | None = None
        """What a delta called it of which nothing was shown: the next one says so."""
        self._spelling: dict[int, _Spelling] = {}
        self._spells = run.asked.logprobs
        self._only_text: dict[int, StreamGuard] = {}
        """The guard of each choice of which nothing but text is under way."""
        self.open: set[int] = set()
        """Choices that have begun and not come to their end."""
        self.blocked = False

    @property
    def findings(self) -> list[Finding]:
        return [*self._own, *(f for text in self._texts.values() for f in text.findings)]

    def feed(self, delta: Delta) -> Delta | None:
        """What may be shown now of this delta and of what was held before it."""
        guarded = self._only_text.get(delta.index)
        if guarded is not None and delta.text and _is_mere_text(delta):
            # As `_judge`, for one more word of an answer that has nothing but words: nearly every delta.
            text = guarded.feed(delta.text)
            self.blocked = self.blocked or guarded.blocked
            if text == delta.text and delta.raw is None:
                shown = delta
            else:
                shown = Delta(text=text, usage=delta.usage, index=delta.index, model=delta.model)
        else:
            self._only_text.pop(delta.index, None)
            if delta.usage is None or _says_something(replace(delta, usage=None)):
                self.open.add(delta.index)
            shown = self._judge(delta)
            if delta.finish_reason is not None and not self.blocked:
                self.open.discard(delta.index)
        if self.blocked:
            return None
        if shown is not delta and not _says_something(shown):
            self._model = shown.model or self._model
            return None
        if self._model is not None:
            shown, self._model = replace(shown, model=shown.model or self._model), None
        return shown

    def _judge(self, delta: Delta) -> Delta:
        """The delta itself when all of it passes at once and nothing else does, and it brings no event's bytes: what
        else is in those nobody has read."""
        ends, index = delta.finish_reason is not None, delta.index
        # When another kind of content begins, the one before is whole.
        text_ends = ends or bool(delta.tool_calls or delta.refusal)
        reasoning_ends = text_ends or bool(delta.text or delta.thinking is not None)
        reasoning, masked = self._passed(index, "reasoning", delta.reasoning, reasoning_ends)
        text, _ = self._passed(index, "text", delta.text, text_ends)
        refusal, _ = self._passed(index, "refusal", delta.refusal, ends)
        calls = self._passed_calls(delta, ends)
        thinking = delta.thinking
        if thinking is not None and thinking.text and (masked or not self._passes(thinking.text)):
            thinking = None  # it says again what was masked, and its signature is of those very words
        same = (text, reasoning, refusal, calls) == (
            delta.text,
            delta.reasoning,
            delta.refusal,
            delta.tool_calls,
        )
        logprobs = delta.logprobs
        if self._spells or logprobs or index in self._spelling:
            logprobs = self._spelling.setdefault(index, _Spelling()).passed(delta, text)
        if same and thinking is delta.thinking and logprobs == delta.logprobs and delta.raw is None:
            return delta
        return replace(
            delta,
            text=text,
            reasoning=reasoning,
            refusal=refusal,
            tool_calls=calls,
            thinking=thinking,
            raw=None,
            logprobs=logprobs,
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
        if what == "text" and not ends and not self._spells and len(self._texts) == 1:
            self._only_text[index] = guarded
        return shown, ends and any(finding.action != "flag" for finding in guarded.findings)

    def _passes(self, text: str) -> bool:
        """Whether nothing of a finished block is masked; it was mostly read before, as reasoning."""
        verdict = self._guard.check(text, "output", self._policy)
        self.blocked = self.blocked or verdict.action == "block"
        return verdict.text == text

    def _passed_calls(self, delta: Delta, ends: bool) -> tuple[ToolCallDelta, ...]:
        """Whole calls, once nothing more can come for them: a new call began, or the answer ended."""
        if not (delta.tool_calls or self._calls):
            return ()
        for piece in delta.tool_calls:
            self._calls.setdefault((delta.index, piece.index), []).append(piece)
        held = [key for key in self._calls if key[0] == delta.index]
        newest = max((key[1] for key in held), default=-1)
        done = [key for key in held if ends or key[1] < newest]
        return tuple(call for key in sorted(done) for call in self._judged(self._calls.pop(key)))

    def _judged(self, pieces: list[ToolCallDelta]) -> list[ToolCallDelta]:
        arguments = "".join(piece.arguments for piece in pieces)
        name = next((piece.name for piece in pieces if piece.name), None)
        verdict, of_name = check_json(arguments, self._check), self._check(name or "")
        self._own += (*verdict.findings, *of_name.findings)
        if "block" in (verdict.action, of_name.action):
            self.blocked = True
            return []
        if (verdict.text, of_name.text) == (arguments, name or ""):
            return pieces
        call_id = next((piece.id for piece in pieces if piece.id), None)
        return [ToolCallDelta(pieces[0].index, call_id, of_name.text or None, verdict.text)]

    def _check(self, text: str) -> Verdict:
        return self._guard.check(text, "output", self._policy)


class _Spelling:
    """Log-probabilities of one choice's text: they wait with the words they spell, and end where a word is masked."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, Mapping[str, Any]]] = deque()
        self._shown = b""
        """Of words that are shown and whose tokens are not told yet: some providers tell them behind the words."""
        self._over = False

    def passed(self, delta: Delta, shown: str) -> tuple[Mapping[str, Any], ...]:
        """Those that may be told beside `shown`, of this delta and of earlier ones. Those of reasoning never are."""
        if self._over:
            return ()
        if delta.text or not (delta.reasoning or delta.tool_calls or delta.refusal):
            self._waiting.extend((_spelled(item), item) for item in delta.logprobs)
        left, told = self._shown + shown.encode(), []
        while self._waiting and left.startswith(self._waiting[0][0]):
            token, item = self._waiting.popleft()
            left = left[len(token) :]
            told.append(item)
        if self._waiting and not self._waiting[0][0].startswith(left):
            self._over = True
            self._waiting.clear()
        self._shown = left
        return tuple(told)


def _spelled(item: Mapping[str, Any]) -> bytes:
    """A token may be a part of a character, which only its bytes can tell; else its text is what counts."""
    token = str(item.get("token") or "")
    try:
        given = bytes(item.get("bytes") or ())
    except (TypeError, ValueError):
        return token.encode()
    is_part = bool(given) and "\ufffd" in given.decode(errors="replace")
    return given if is_part else token.encode()


def _is_mere_text(delta: Delta) -> bool:
    """Whether it has nothing to judge but its text, and does not end it."""
    return not (
        delta.reasoning
        or delta.tool_calls
        or delta.refusal
        or delta.logprobs
        or delta.finish_reason is not None
        or delta.thinking is not None
        or delta.stop_sequence is not None
    )


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
