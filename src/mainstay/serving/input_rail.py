"""Step 4: what users say and what tools return is checked before a model, the cache or the trace sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mainstay.guard.types import Policy, Rail, Verdict
from mainstay.models.types import ChatMessage, TextPart
from mainstay.observe.types import Attr
from mainstay.serving.errors import ContentBlocked
from mainstay.serving.run import Run
from mainstay.serving.types import finding_body

INLINE_GUARD_CHARS = 4000
"""Requests with up to this much text are guarded on the event loop: a thread would cost more than the check."""

_CheckText = Callable[[str, Rail], Verdict]


async def guard_input(run: Run) -> None:
    """Masked text goes on masked, also into the trace. Raises ContentBlocked.

    A user's words pass the input rail; a tool's result is untrusted content and passes the context rail.
    """
    policy = run.policy
    if policy is None or not (policy.rails.get("input") or policy.rails.get("context")):
        run.describe_messages()
        return
    with run.trace.step("guard.input") as step:
        before = run.messages
        length = sum(len(m.content) for m in before)
        if length <= INLINE_GUARD_CHARS:
            after = _guarded(run, policy)
        else:
            after = await asyncio.to_thread(_guarded, run, policy)
        if run.findings:
            step.set(Attr.GUARD, [finding_body(f) for f in run.findings])
        if after != before:
            # The client's own body says what must not be said: it is rebuilt from the guarded messages.
            run.asked = replace(run.asked, messages=after, source=None)
    run.describe_messages()


def _guarded(run: Run, policy: Policy) -> tuple[ChatMessage, ...]:
    def check(text: str, rail: Rail) -> Verdict:
        verdict = run.deps.guard.check(text, rail, policy)
        run.findings.extend(verdict.findings)
        if verdict.action == "block" or (verdict.action == "drop" and rail == "input"):
            _refuse(run, policy, verdict)
        return verdict

    return tuple(_guarded_message(message, check) for message in run.messages)


def _guarded_message(message: ChatMessage, check: _CheckText) -> ChatMessage:
    rail: Rail | None = {"user": "input", "tool": "context"}.get(message.role)  # type: ignore[assignment]
    if rail is None or not message.content:
        return message
    if not message.parts:
        text = check(message.content, rail).text
        return message if text == message.content else replace(message, content=text)
    parts = tuple(
        replace(part, text=check(part.text, rail).text) if isinstance(part, TextPart) else part
        for part in message.parts
    )
    if parts == message.parts:
        return message
    content = "".join(part.text for part in parts if isinstance(part, TextPart))
    return replace(message, content=content, parts=parts)


def _refuse(run: Run, policy: Policy, verdict: Verdict) -> None:
    run.describe_blocked(verdict)
    raise ContentBlocked(
        policy.blocked_message,
        fix="Rephrase the message.",
        param="messages",
        guard=[finding_body(f) for f in verdict.findings],
    )
