"""One request on its way through attempts: whom to ask next, when, and what its failure leaves open."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import AsyncGenerator
from typing import Final, cast

from mainstay.core.errors import MainstayError
from mainstay.models.errors import ProviderError, ProviderStreamBroken, ProviderTimeout
from mainstay.models.types import ChatCall, Completion, Delta, Route, Target
from mainstay.serving.errors import DeadlineExceeded
from mainstay.serving.routing.breakers import TargetState
from mainstay.serving.routing.errors import (
    attempts_detail,
    broken_off,
    deadline_exceeded,
)
from mainstay.serving.routing.fallbacks import Fallbacks, Parts
from mainstay.serving.routing.policies import Candidate
from mainstay.serving.routing.types import Attempt, Observer, Plan, Prepare

HELD_DELTAS_MAX: Final = 64
HELD_BYTES_MAX: Final = 256 << 10
_FIRST: Final = frozenset({0})
_NONE: Final[frozenset[int]] = frozenset()
_DEADLINE_SLACK_S: Final = 0.01
"""A provider's own timer for the same deadline may ring this much before ours."""


class Attempts:
    """One request on its way through attempts. One attempt at most is open; `close` ends it if need be."""

    __slots__ = (
        "_alarms",
        "_attempt",
        "_candidate",
        "_clock",
        "_done",
        "_fallbacks",
        "_observer",
        "_plan",
        "_probe",
        "_seen",
        "_sleep",
        "_streamed",
        "alarm",
        "answer",
    )

    answer: AsyncGenerator[Delta]

    def __init__(self, parts: Parts, plan: Plan, observer: Observer, streamed: bool) -> None:
        loop = asyncio.get_running_loop()
        self._sleep = parts.sleep
        self._plan = plan
        self._observer = observer
        self._streamed = streamed
        self._clock = parts.clock or loop.time
        self._fallbacks = Fallbacks(parts, plan, streamed)
        self._candidate: Candidate | None = None
        self._attempt: Attempt | None = None
        self._probe = False
        self._seen: frozenset[int] = _FIRST
        self._done: frozenset[int] = _NONE
        self._alarms = parts.alarms
        self.alarm = parts.alarms.start(loop, plan.ends_at_s, current_task())

    # The two ways of asking

    async def first_words(self, prepare: Prepare) -> list[Delta]:
        """Deltas up to the first content of the target that speaks first; `answer` goes on from there."""
        while True:
            call = await self._open(prepare)
            try:
                return await self._until_content(call)
            except Exception as error:
                self._failed(error)
                await self.answer.aclose()

    async def whole_answer(self, prepare: Prepare) -> Completion:
        while True:
            call = await self._open(prepare)
            attempt = self._open_attempt()
            target = attempt.target
            try:
                completion = _whole(target, await target.provider.complete(call, self._left_s()))
            except Exception as error:
                self._failed(error)
            else:
                attempt.completion = completion
                self._end(None)
                return completion

    async def _until_content(self, call: ChatCall) -> list[Delta]:
        target = self._target()
        # Providers' streams are asynchronous generators (models.types): they can be closed.
        self.answer = cast("AsyncGenerator[Delta]", target.provider.stream(call, self._left_s()))
        try:
            held = await self._hold(target)
        except asyncio.CancelledError:
            if self.alarm.at_s < self._plan.ends_at_s and self.alarm.owns_cancellation():
                raise _silent(target, self._fallbacks.route) from None
            raise
        attempt, now_s = self._open_attempt(), self._clock()
        attempt.ttft_s = now_s - attempt.started_s
        self._state().latency_of(streamed=True).observe(attempt.ttft_s, now_s)
        self.alarm.set(self._plan.ends_at_s)
        return held

    async def _hold(self, target: Target) -> list[Delta]:
        held: list[Delta] = []
        held_bytes = 0
        async for delta in self.answer:
            held.append(delta)
            if delta.finish_reason is not None or delta.index:
                self.note(delta)
            held_bytes += 0 if delta.raw is None else len(delta.raw)
            if _is_content(delta) or len(held) == HELD_DELTAS_MAX or held_bytes > HELD_BYTES_MAX:
                return held
        raise _unfinished(target)

    # The start of an attempt

    async def _open(self, prepare: Prepare) -> ChatCall:
        """Choose, wait if need be, prepare, begin. Raises when there is nobody left to ask."""
        plan, clock = self._plan, self._clock
        now_s = clock()
        if now_s >= plan.ends_at_s:
            raise self.deadline_error()
        candidate, wait_s = self._fallbacks.next(now_s)
        if wait_s > 0:
            if plan.attempts:
                plan.attempts[-1].wait_s = wait_s
            await self._sleep(wait_s)
        target = candidate.target
        self._candidate, self._probe = candidate, candidate.state.enter()
        call = await prepare(target)
        now_s = clock()
        if now_s >= plan.ends_at_s:
            raise self.deadline_error()
        attempt = self._attempt = Attempt(target, now_s)
        plan.attempts.append(attempt)
        candidate.tries += 1
        self._observer.began(attempt, call)
        if self._streamed and (patience_s := self._fallbacks.route.first_token_timeout_s) is not None:
            self.alarm.set(min(plan.ends_at_s, now_s + patience_s))
        return call

    # Where it stands

    def _left_s(self) -> float:
        return max(0.0, self._plan.ends_at_s - self._clock())

    def _open_attempt(self) -> Attempt:
        assert self._attempt is not None  # between `_open` and `_end` or `_cut` there is one
        return self._attempt

    def _open_candidate(self) -> Candidate:
        assert self._candidate is not None
        return self._candidate

    def _target(self) -> Target:
        return self._open_attempt().target

    def _state(self) -> TargetState:
        return self._open_candidate().state

    # The end of an attempt

    def note(self, delta: Delta) -> None:
        """Keep account of which choices have begun and which are finished."""
        self._seen |= {delta.index}
        if delta.finish_reason is not None:
            self._done |= {delta.index}

    def ended(self) -> None:
        """The stream is over, or the deadline came while the reader took its time."""
        if self._seen <= self._done:
            self._end(None)
        elif self.alarm.rang:
            raise self.deadline_error()
        else:
            error = _unfinished(self._target())
            raise self._broken_off(error) from error

    def late(self) -> None:
        """The deadline rang while we waited."""
        if self._attempt is not None and self._seen <= self._done:
            self._end(None)
        else:
            raise self.deadline_error() from None

    def broke(self, error: Exception) -> None:
        """An error came up. While an attempt is open it is the provider's, and words are out."""
        if self._attempt is None or isinstance(error, DeadlineExceeded):
            raise error
        if self._seen <= self._done:
            self._end(None)
        elif isinstance(error, ProviderError):
            if self._is_deadline(error):
                raise self.deadline_error() from error
            raise self._broken_off(error) from error
        else:
            self._end(_as_recorded(error, self._target()))
            raise error

    def _broken_off(self, error: ProviderError) -> MainstayError:
        target = self._target()
        self._end(error)
        return broken_off(target.public_name, error, self._plan.attempts)

    def _failed(self, error: Exception) -> None:
        """Before any word: decide what this failure leaves open, or raise."""
        if self._is_deadline(error):
            raise self.deadline_error() from error
        candidate, recorded = self._open_candidate(), _as_recorded(error, self._target())
        self._end(recorded)
        self._seen, self._done = _FIRST, _NONE
        self.alarm.set(self._plan.ends_at_s)
        if not isinstance(error, MainstayError):
            raise error
        self._fallbacks.after(candidate, error, self._clock())

    def _is_deadline(self, error: Exception) -> bool:
        ends_at_s = self._plan.ends_at_s
        if self.alarm.rang and self.alarm.at_s >= ends_at_s:  # whatever an adapter made of being cancelled
            return isinstance(error, ProviderError)
        return isinstance(error, ProviderTimeout) and self._clock() >= ends_at_s - _DEADLINE_SLACK_S

    def deadline_error(self) -> DeadlineExceeded:
        """Ends the open attempt, if any; a caller's haste is no failure of the target."""
        error = deadline_exceeded(self._plan.route.name)
        if self._attempt is not None:
            self._cut(error)
        error.detail["attempts"] = attempts_detail(self._plan.attempts)
        return error

    def _end(self, error: MainstayError | None) -> None:
        """The target's doing: it answered, or failed."""
        attempt, state, now_s = self._open_attempt(), self._state(), self._clock()
        attempt.error, attempt.ended_s = error, now_s
        took_s = now_s - attempt.started_s
        if error is None:
            if not self._streamed:
                state.latency[False].observe(took_s, now_s)
            state.succeeded(self._probe, now_s)
        else:
            if attempt.ttft_s is None and isinstance(error, ProviderTimeout):
                state.latency_of(self._streamed).at_least(took_s, now_s)
            state.failed(self._probe, error, now_s)
        self._attempt = self._candidate = None
        self._observer.ended(attempt)

    def _cut(self, error: MainstayError | None) -> None:
        """The caller's doing: it left, refused, or had no more time."""
        attempt, candidate = self._attempt, self._candidate
        if candidate is None:
            return
        self._attempt = self._candidate = None
        candidate.state.cut(self._probe)
        if attempt is None:
            return
        now_s = self._clock()
        attempt.error, attempt.ended_s = error, now_s
        if attempt.ttft_s is None:
            candidate.state.latency_of(self._streamed).at_least(now_s - attempt.started_s, now_s)
        self._observer.ended(attempt)

    async def close(self) -> None:
        """Hang up if the answer still runs. Nothing else is left behind, whatever happened."""
        self._alarms.end(self.alarm)
        try:
            if self._streamed and (answer := getattr(self, "answer", None)) is not None:
                await answer.aclose()
        finally:
            self._cut(None)


def _is_content(delta: Delta) -> bool:
    """Something that cannot be unsaid. The end of an answer is one, too, also of an empty one."""
    return bool(
        delta.text
        or delta.reasoning
        or delta.tool_calls
        or delta.refusal
        or delta.finish_reason is not None
        or delta.thinking is not None
    )


def _silent(target: Target, route: Route) -> ProviderTimeout:
    return ProviderTimeout(
        f"{target.public_name} said nothing for {route.first_token_timeout_s:g} s.",
        provider=target.provider.name,
    )


def _whole(target: Target, completion: Completion) -> Completion:
    if not completion.choices:
        raise _unfinished(target)
    return completion


def _unfinished(target: Target) -> ProviderStreamBroken:
    return ProviderStreamBroken(
        f"{target.public_name} ended its answer without saying why.", provider=target.provider.name
    )


def _as_recorded(error: Exception, target: Target) -> MainstayError:
    """What an attempt's span and its target's breaker are told; an adapter's own mistake has no type of ours."""
    if isinstance(error, MainstayError):
        return error
    return ProviderError(
        f"{target.provider.name} failed in a way nobody foresaw ({type(error).__name__}).",
        provider=target.provider.name,
    )
