"""Requests, tokens and slots of the scopes that one request falls under: all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.serving.limits import refusals
from mainstay.serving.limits.accounts import ScopeState
from mainstay.serving.limits.meters import MINUTE_US, Meter
from mainstay.serving.limits.plans import Plan

Metered = list[tuple[ScopeState, Meter]]


def full(plan: Plan, requests: Meter | None, tokens: Meter | None, charged: int) -> bool:
    """Whether the tightest limits of a request, drained, or the slots of its scopes leave no room."""
    if requests is not None and requests.capacity - requests.used < MINUTE_US:
        return True
    if tokens is not None and tokens.capacity - tokens.used < charged:
        return True
    for state, slots in plan.slots:  # noqa: SIM110 - `any` with a generator takes three times as long
        if state.running >= slots:
            return True
    return False


def take(plan: Plan, charged: int) -> None:
    """Count one request of each, and a slot."""
    for state in plan.states:
        state.running += 1
    for meter in plan.requests:
        meter.used += MINUTE_US
    for meter in plan.tokens:
        meter.used += charged


def refusal(live: Sequence[ScopeState], tokens: int, now: int, usual_duration_s: float) -> Exception:
    """Why one of them is full: the limit with the longest wait speaks, so that coming back then is no waste."""
    by_requests = [(state, meter) for state in live if (meter := state.requests) is not None]
    by_tokens = [(state, meter) for state in live if (meter := state.tokens) is not None]
    for _, meter in (*by_requests, *by_tokens):
        meter.drain(now)
    for state, meter in by_tokens:
        if tokens > meter.limit:
            return refusals.tokens_over_limit(state.scope, meter.limit, tokens)
    if waiting := [(state, meter) for state, meter in by_requests if meter.wait_us(1) > 0]:
        state, meter = max(waiting, key=lambda pair: pair[1].wait_us(1))
        return refusals.requests_limited(state.scope, meter.limit, meter.wait_us(1), meter.state().reset_s)
    if waiting := [(state, meter) for state, meter in by_tokens if meter.wait_us(tokens) > 0]:
        return _tokens_refusal(waiting, tokens, tokens)
    busy = next(state for state in live if state.slots is not None and state.running >= state.slots)
    return refusals.too_many_at_once(busy.scope, busy.slots or 0, usual_duration_s)


def token_meters(states: Sequence[ScopeState], at_us: int) -> Metered:
    """The token limits that a hold reserved at `at_us` was counted against."""
    found = ((state, state.tokens) for state in states)
    return [(state, meter) for state, meter in found if meter is not None and meter.since_us <= at_us]


def need_tokens(meters: Metered, tokens: int, more: int, now: int) -> None:
    """Raises unless `more` tokens, `tokens` in all, fit now."""
    for _, meter in meters:
        meter.drain(now)
    if waiting := [(state, meter) for state, meter in meters if meter.wait_us(more) > 0]:
        raise _tokens_refusal(waiting, tokens, more)


def _tokens_refusal(waiting: Metered, tokens: int, more: int) -> Exception:
    state, meter = max(waiting, key=lambda pair: pair[1].wait_us(more))
    if tokens > meter.limit:
        return refusals.tokens_over_limit(state.scope, meter.limit, tokens)
    return refusals.tokens_limited(state.scope, meter.limit, more, meter.wait_us(more), meter.state())
