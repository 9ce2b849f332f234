"""What a limiter knows beside its counts: how long requests usually run, and who hears of a spent soft budget."""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Callable

from mainstay.core.clock import US_PER_S
from mainstay.serving.limits import refusals
from mainstay.serving.limits.types import BudgetState

_log = logging.getLogger(__name__)

OnSoftExceeded = Callable[[BudgetState], None]


class Durations:
    """How long the latest requests took, for saying when a place or money may be free again."""

    def __init__(self) -> None:
        self._latest_us: deque[int] = deque(maxlen=64)

    def add(self, duration_us: int) -> None:
        self._latest_us.append(duration_us)

    def usual_s(self) -> float:
        """Their median; a second before there are any."""
        return statistics.median(self._latest_us) / US_PER_S if self._latest_us else 1.0


def label_of(state: BudgetState) -> str:
    """See `refusals.budget_label`."""
    return refusals.budget_label(state.scope_name, state.kind, state.limit_nusd, state.window)


def tell_spent(state: BudgetState, listener: OnSoftExceeded | None) -> None:
    """A soft budget is spent: it is logged, and the listener hears."""
    _log.warning("a soft budget is spent: %s", label_of(state))
    if listener is None:
        return
    try:
        listener(state)
    except Exception:  # whoever listens must not keep a request from being answered or settled
        _log.exception("telling of a spent soft budget failed")
