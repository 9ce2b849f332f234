"""Calls one provider: attempts share a deadline, and end for good with the first word that came through."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from mainstay.models import ProviderError
from mainstay.models.types import ChatCall, Delta, Target
from mainstay.observe import Step
from mainstay.serving.errors import DeadlineExceeded, UpstreamFailed

ATTEMPTS_MAX = 3
BACKOFF_S = 0.25
BACKOFF_S_MAX = 4.0
RETRY_AFTER_S_MAX = 5.0
"""A provider that asks for a longer wait is not waited for: its error goes to the caller with that wait."""

Sleep = Callable[[float], Awaitable[None]]


async def call_provider(
    target: Target, call: ChatCall, deadline_s: float, step: Step, sleep: Sleep = asyncio.sleep
) -> AsyncGenerator[Delta, None]:
    """Relay one answer. Raises ProviderError, UpstreamFailed (a stream cut short) or DeadlineExceeded.

    Closing this generator, or cancelling whoever waits in it, closes the provider's stream at once.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + deadline_s
    for attempt in range(1, ATTEMPTS_MAX + 1):
        spoke = False
        try:
            async with aclosing(_attempt(target, call, ends_at)) as deltas:
                async for delta in deltas:
                    spoke = True
                    yield delta
        except ProviderError as error:
            wait_s = _wait_s(error, attempt)
            if spoke or wait_s is None or loop.time() + wait_s >= ends_at:
                raise
            step.event(
                "retry", attempt=attempt, status=error.status, code=error.code, wait_ms=round(wait_s * 1000)
            )
        else:
            return
        await sleep(wait_s)


def _wait_s(error: ProviderError, attempt: int) -> float | None:
    """How long to wait before the next attempt; None when there shall be none. Full jitter (AWS, 2015)."""
    if not error.retryable or attempt == ATTEMPTS_MAX:
        return None
    asked: float | None = getattr(error, "retry_after_s", None)
    if asked is not None:
        return asked if asked <= RETRY_AFTER_S_MAX else None
    return random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S * 2**attempt))  # noqa: S311 - spreads load


async def _attempt(target: Target, call: ChatCall, ends_at: float) -> AsyncGenerator[Delta, None]:
    loop = asyncio.get_running_loop()
    remaining_s = ends_at - loop.time()
    # Providers' streams are asynchronous generators (models.types): they can be closed.
    stream = cast(AsyncGenerator[Delta, None], target.provider.stream(call, max(0.0, remaining_s)))
    finished = False
    async with aclosing(stream):
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    delta = await anext(stream)
            except StopAsyncIteration:
                break
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"{target.public_name} did not finish before the deadline.",
                    fix="Ask for fewer tokens, or raise the deadline of the app's generation settings.",
                ) from error
            finished = finished or delta.finish_reason is not None
            yield delta
    if not finished:
        raise UpstreamFailed(
            f"{target.public_name} stopped in the middle of its answer.", fix="Send the request again."
        )
