"""Where every limit stands now, for pages and programs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mainstay.core.errors import Unavailable
from mainstay.govern import LimitScope
from mainstay.services.container import Services
from mainstay.serving.limits.types import BudgetState


@dataclass(frozen=True, slots=True)
class LimitsInUse:
    """Everything in use that has limits, and the state of each of their budgets.

    `states` is None while the counters cannot be read; `problem` then says why.
    """

    scopes: tuple[LimitScope, ...]
    states: tuple[BudgetState, ...] | None
    problem: str | None = None


async def limits_in_use(services: Services) -> LimitsInUse:
    """Sorted by kind and name; budgets in the order of their scopes."""
    scopes = await asyncio.to_thread(_scopes, services)
    try:
        return LimitsInUse(scopes, await services.deps.limiter.states(scopes))
    except Unavailable as error:  # shared counters that are gone: what is set is still worth showing
        return LimitsInUse(scopes, None, str(error))


def _scopes(services: Services) -> tuple[LimitScope, ...]:
    return services.directory().scopes(services.limits.all())
