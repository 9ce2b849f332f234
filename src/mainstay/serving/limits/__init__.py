"""Limits: rates, concurrent requests and budgets of every scope a request falls under, all or nothing.

`MemoryLimiter` keeps them in one process with a `Journal`; `RedisLimiter` shares them among many;
`LimitsElsewhere` knows that another process counts them.
"""

from mainstay.serving.limits.elsewhere import LimitsElsewhere
from mainstay.serving.limits.journal import Journal
from mainstay.serving.limits.memory import MemoryLimiter
from mainstay.serving.limits.redis import RedisLimiter
from mainstay.serving.limits.types import Ask, BudgetState, Hold, Limiter, LimiterFigures
from mainstay.serving.limits.windows import Window, window_at

__all__ = [
    "Ask",
    "BudgetState",
    "Hold",
    "Journal",
    "Limiter",
    "LimiterFigures",
    "LimitsElsewhere",
    "MemoryLimiter",
    "RedisLimiter",
    "Window",
    "window_at",
]
