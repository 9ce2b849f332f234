"""Requests, tokens and slots of the scopes that one request falls under: all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.serving.limits import refusals
from mainstay.serving.limits.accounts import ScopeState
from mainstay.serving.limits.meters import MINUTE_US, Meter
from mainstay.serving.types import RateState

Metered = list[tuple[ScopeState, Meter]]


def full(state: ScopeState, charged: int, now: int) -> bool:
    """Whether a rate or the slots of this scope leave no room. Drains its meters."""
    meter = state.requests
    if meter is not None and meter.drain(now) + MINUTE_US > meter.capacity:
        return True
    meter = state.tokens
    if meter is not None and meter.drain(now) + charged > meter.capacity:
        return True
    return state.slots is not None and state.running >= state.slots


def take(live: list[ScopeState], charged: int) -> tuple[RateState | None, RateState | None]:
    """Count one request of each; (the tightest request limit's state, the tightest token limit's)."""
    requests: Meter | None = None
    tokens: Meter | None = None
    for state in live:
        state.running += 1
        meter = state.requests
        if meter is not None:
            meter.used += MINUTE_US
            if requests is None or meter.capacity - meter.used < requests.capacity - requests.used:
                requests = meter
        meter = state.tokens
        if meter is not None:
            meter.used += charged
            if tokens is None or meter.capacity - meter.used < tokens.capacity - tokens.used:
                tokens = meter
    return (requests.state() if requests else None), (tokens.state() if tokens else None)


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
