"""Scopes, asks and a clock for the tests of limits."""

from __future__ import annotations

from mainstay.govern.types import Budget, Limits, LimitScope, ScopeKind
from mainstay.serving.limits.types import Ask, BudgetState, Limiter

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
NOV_24_US = 1_795_478_400_000_000
"""2026-11-24T00:00:00Z, a Tuesday"""


class ManualClock:
    def __init__(self, now_us: int = NOV_24_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def forward(self, by_us: int) -> None:
        self.now_us += by_us


def scope(
    kind: ScopeKind = "key",
    id: str = "a",
    *budgets: Budget,
    rpm: int | None = None,
    tpm: int | None = None,
    slots: int | None = None,
) -> LimitScope:
    return LimitScope(kind, f"{kind}_{id}", id, Limits(rpm, tpm, slots, budgets))


def asking(wanted: int | None = 0, least: int | None = None, tokens: int = 0) -> Ask:
    return Ask(tokens, wanted, least if least is not None or wanted is None else min(1, wanted))


async def state_of(limiter: Limiter, of: LimitScope, which: int = 0) -> BudgetState:
    return (await limiter.states([of]))[which]


async def money_of(limiter: Limiter, of: LimitScope, which: int = 0) -> tuple[int, int]:
    """(spent, held)"""
    state = await state_of(limiter, of, which)
    return state.spent_nusd, state.held_nusd
