"""Step 4: all that a request says is checked before a model, the cache or the trace sees it."""

from __future__ import annotations

import asyncio

from mainstay.guard.types import Policy
from mainstay.models.types import ChatCall
from mainstay.observe.types import Attr
from mainstay.serving.call_guard import CallGuard
from mainstay.serving.deps import Deps
from mainstay.serving.run import Run
from mainstay.serving.types import finding_body

INLINE_GUARD_CHARS = 4000
"""Requests with up to this much text are guarded on the event loop: a thread would cost more than the check."""

INLINE_LOOK_CHARS = 16_000
"""Up to so much, the look that mostly tells that there is nothing to find is cheaper on the event loop, too."""


def guards_input(policy: Policy | None) -> bool:
    return policy is not None and bool(policy.rails.get("input") or policy.rails.get("context"))


async def guard_input(run: Run) -> None:
    """Masked text goes on masked, also into the trace. Raises ContentBlocked."""
    policy = run.policy
    if policy is not None and guards_input(policy) and not _needs_no_step(run, policy):
        await _guard(run, policy)
    run.describe_messages()


def _needs_no_step(run: Run, policy: Policy) -> bool:
    """Whether there is nothing to tell, as for nearly every plain model's call; apps show that they looked."""
    return (
        run.runnable is None
        and _length(run.asked) <= INLINE_LOOK_CHARS
        and CallGuard.rules_out(run.asked, run.deps.guard, policy)
    )


async def _guard(run: Run, policy: Policy) -> None:
    with run.trace.step("guard.input") as step:
        reading = CallGuard(run.deps.guard, policy, for_app=run.runnable is not None)
        try:
            run.asked = await _read(reading, run.asked)
        finally:
            run.findings.extend(reading.findings)
            if reading.blocked is not None:
                run.describe_blocked(reading.blocked)
            if run.findings:
                step.set(Attr.GUARD, [finding_body(f) for f in run.findings])
            elif run.runnable is None:
                step.leave_out()
        run.masked = reading.masked


async def guarded(call: ChatCall, policy: Policy | None, deps: Deps) -> ChatCall:
    """A plain model's call as the input rail lets it go on, outside of a request's life. Raises ContentBlocked."""
    if policy is None or not guards_input(policy):
        return call
    return await _read(CallGuard(deps.guard, policy, for_app=False), call)


async def guarded_texts(texts: tuple[str, ...], policy: Policy | None, deps: Deps) -> tuple[str, ...]:
    """Texts that a provider shall embed: none can instruct it, so all rules but those on injection hold."""
    if policy is None or not policy.rails.get("input"):
        return texts
    reading = CallGuard(deps.guard, policy, for_app=False)
    return await asyncio.to_thread(lambda: tuple(reading.text(text, "operator") for text in texts))


async def _read(reading: CallGuard, call: ChatCall) -> ChatCall:
    if _length(call) <= INLINE_GUARD_CHARS:
        return reading.call(call)
    return await asyncio.to_thread(reading.call, call)


def _length(call: ChatCall) -> int:
    """About how much there is to read, in characters."""
    return sum([len(m.content) + 1000 * len(m.parts) for m in call.messages]) + 500 * len(call.tools)
