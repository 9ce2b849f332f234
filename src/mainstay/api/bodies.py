"""Bodies that several routes share: limits as programs write and read them, and examples for the API's description."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from mainstay.core.money import nusd_from_usd, usd_text
from mainstay.govern import Budget, BudgetWindow, Limits

LIMITS_EXAMPLE: Final[dict[str, Any]] = {
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "concurrent_requests": 8,
    "budgets": [
        {"limit_usd": "5", "window": "day", "hard": True},
        {"limit_usd": "80", "window": "month", "hard": False},
    ],
}


class BudgetBody(BaseModel):
    """Dollars per window (UTC; weeks begin on Monday). A hard budget refuses, a soft one warns."""

    model_config = ConfigDict(extra="forbid")
    limit_usd: str = Field(description="Dollars, as a decimal string.", max_length=40)
    window: BudgetWindow
    hard: bool = True


class LimitsBody(BaseModel):
    """What one thing may use. What is left out, or null, is not limited."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [LIMITS_EXAMPLE]})
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    concurrent_requests: int | None = Field(default=None, ge=1)
    budgets: list[BudgetBody] = Field(default=[], max_length=8)


def limits_of(body: LimitsBody) -> Limits:
    """Raises InvalidInput for what is no amount."""
    return Limits(
        body.requests_per_minute,
        body.tokens_per_minute,
        body.concurrent_requests,
        tuple(Budget(nusd_from_usd(b.limit_usd), b.window, b.hard) for b in body.budgets),
    )


def shown_limits(limits: Limits) -> dict[str, object]:
    """In the form that is taken, so that what was read can be sent back."""
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent_requests": limits.concurrent_requests,
        "budgets": [
            {"limit_usd": usd_text(b.limit_nusd), "window": b.window, "hard": b.hard} for b in limits.budgets
        ],
    }


def answers(example: Any, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: one example of its answer."""
    return {status: {"content": {"application/json": {"example": example}}}}
