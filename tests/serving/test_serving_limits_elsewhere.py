"""A control plane beside a gateway without Redis cannot see its counters, and says so."""

from __future__ import annotations

import pytest

from mainstay.govern.types import Budget, Limits, LimitScope
from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits import Ask, LimitsElsewhere

HARD = LimitScope("app", "bot", "bot", Limits(budgets=(Budget(100, "day", hard=True),)))
RATED = LimitScope("app", "bot", "bot", Limits(requests_per_minute=1))
ASK = Ask(10, 10, 5)


async def test_what_a_hard_budget_would_pay_for_is_refused_with_what_to_do() -> None:
    with pytest.raises(BudgetStoreUnavailable, match="app 'bot'") as refused:
        await LimitsElsewhere().reserve((RATED, HARD), ASK)
    assert "redis_url" in (refused.value.fix or "")


async def test_what_has_no_hard_budget_goes_on_uncounted() -> None:
    limiter = LimitsElsewhere()
    for _ in range(3):
        hold = await limiter.reserve((RATED,), ASK)
        limiter.settle(await limiter.resize(hold, ASK), 10, 10)
    assert not hold.tracked


async def test_budgets_are_not_shown_as_unspent() -> None:
    with pytest.raises(BudgetStoreUnavailable):
        await LimitsElsewhere().states((HARD,))
    assert await LimitsElsewhere().states((RATED,)) == ()
