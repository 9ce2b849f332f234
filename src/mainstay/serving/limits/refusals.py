"""The words of every refusal: which limit, of whom, where it stands, and when to come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mainstay.core.clock import US_PER_S, to_iso
from mainstay.core.money import show_usd
from mainstay.govern.types import LimitScope
from mainstay.serving.errors import (
    BudgetInFlight,
    BudgetStoreUnavailable,
    InsufficientQuota,
    PriceUnknown,
    RateLimited,
    RequestExceedsBudget,
    RequestExceedsTokenLimit,
    TokensLimited,
    TooManyAtOnce,
)
from mainstay.serving.limits.types import Ask, BudgetState
from mainstay.serving.types import RateState

_PER = {"day": "a day", "week": "a week", "month": "a month", "total": "in total"}


def budget_label(name: str, kind: str, limit_nusd: int, window: str) -> str:
    """For people, e.g. `team support: $50.00 a month`."""
    return f"{kind} {name}: {show_usd(limit_nusd)} {_PER[window]}"


def requests_limited(scope: LimitScope, limit: int, wait_us: int, owed_s: float) -> RateLimited:
    error = RateLimited(
        f"The {scope.kind} {scope.name} may send {limit} requests per minute.",
        fix=_wait(wait_us, "a higher limit"),
        retry_after_s=wait_us / US_PER_S,
        **_source(scope, limit=limit),
    )
    error.rate = RateState(limit, 0, owed_s)
    return error


def tokens_limited(
    scope: LimitScope, limit: int, tokens: int, wait_us: int, state: RateState
) -> TokensLimited:
    error = TokensLimited(
        f"The {scope.kind} {scope.name} may use {limit} tokens per minute; this request needs up to {tokens}, "
        f"and {state.remaining} are left now.",
        fix=_wait(wait_us, "a higher limit") + " A smaller max_tokens needs less.",
        retry_after_s=wait_us / US_PER_S,
        **_source(scope, limit=limit, requested=tokens),
    )
    error.token_rate = state
    return error


def tokens_over_limit(scope: LimitScope, limit: int, tokens: int) -> RequestExceedsTokenLimit:
    return RequestExceedsTokenLimit(
        f"This request needs up to {tokens} tokens, more than the {limit} per minute of {scope.kind} {scope.name}.",
        fix="Send a shorter input or a smaller max_tokens.",
        **_source(scope, limit=limit, requested=tokens),
    )


def too_many_at_once(scope: LimitScope, limit: int, retry_after_s: float) -> TooManyAtOnce:
    return TooManyAtOnce(
        f"The {scope.kind} {scope.name} may have {limit} requests running at once.",
        fix="Try again when one of them has ended.",
        retry_after_s=retry_after_s,
        **_source(scope, limit=limit),
    )


def price_unknown(scope: LimitScope) -> PriceUnknown:
    return PriceUnknown(
        f"The price of this model is not known, and the {scope.kind} {scope.name} has a budget to keep.",
        fix="Use a model with a known price, or a key without a hard budget.",
        param="model",
        **_source(scope),
    )


def budget_refused(states: Sequence[BudgetState], ask: Ask, retry_after_s: float) -> Exception:
    """Why these budgets do not grant `ask`; the tightest one speaks. `states`: at least one hard one refuses."""
    least = ask.least_nusd or 0
    hard = [state for state in states if state.hard]
    too_small = [state for state in hard if least > state.limit_nusd]
    if too_small:
        return _exceeds(min(too_small, key=lambda s: s.limit_nusd), ask, least)
    spent = [state for state in hard if state.spent_nusd + least > state.limit_nusd]
    if spent:
        return _spent(min(spent, key=lambda s: s.limit_nusd - s.spent_nusd))
    return _in_flight(min(hard, key=lambda s: s.available_nusd), retry_after_s)


def store_unavailable(reason: str) -> BudgetStoreUnavailable:
    return BudgetStoreUnavailable(
        f"Budgets cannot be kept now: {reason}.", fix="Try again in a second; the log has the cause."
    )


def _exceeds(state: BudgetState, ask: Ask, least: int) -> RequestExceedsBudget:
    fits = ask.max_tokens_within(state.limit_nusd) if ask.max_tokens_within is not None else None
    fix = (
        f"Send max_tokens of at most {fits}, a shorter input, or ask a cheaper model."
        if fits
        else "No max_tokens is small enough: send a shorter input or ask a cheaper model."
    )
    return RequestExceedsBudget(
        f"At least {show_usd(least)} must be held for this request, more than {_budget(state)}.",
        fix=fix,
        max_tokens_that_fit=fits or None,
        **_money(state),
    )


def _spent(state: BudgetState) -> InsufficientQuota:
    budget = _budget(state)
    return InsufficientQuota(
        f"{budget[0].upper()}{budget[1:]} is spent ({show_usd(state.spent_nusd)}).",
        fix="Wait for the next window, or ask an administrator for a larger budget.",
        retry_after_s=None,
        **_money(state),
    )


def _in_flight(state: BudgetState, retry_after_s: float) -> BudgetInFlight:
    return BudgetInFlight(
        f"The rest of {_budget(state)} is held by requests that are still running.",
        fix="Try again when one of them has ended.",
        retry_after_s=retry_after_s,
        **_money(state),
    )


def _budget(state: BudgetState) -> str:
    return (
        f"the {state.kind} {state.scope_name}'s budget of {show_usd(state.limit_nusd)} {_PER[state.window]}"
    )


def _money(state: BudgetState) -> dict[str, Any]:
    return {
        "limit_source": state.kind,
        "scope": state.scope_id,
        "scope_name": state.scope_name,
        "window": state.window,
        "limit_nusd": state.limit_nusd,
        "settled_nusd": state.spent_nusd,
        "held_nusd": state.held_nusd,
        "resets_at": None if state.resets_at_us is None else to_iso(state.resets_at_us),
    }


def _source(scope: LimitScope, **more: int) -> dict[str, Any]:
    return {"limit_source": scope.kind, "scope": scope.id, "scope_name": scope.name, **more}


def _wait(wait_us: int, what: str) -> str:
    return f"Wait {math.ceil(wait_us / 100_000) / 10:.1f} s, or ask an administrator for {what}."
