"""The windows that budgets count in: days, ISO weeks and months of UTC, or everything together.

A window id is `2026-11-24`, `2026-W48`, `2026-11` or `total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mainstay.core.clock import US_PER_S, to_datetime
from mainstay.govern.types import BudgetWindow

FOREVER_US = 2**62
"""Later than any moment: the end of the window `total`."""

_ID_FORMATS: dict[BudgetWindow, str] = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


@dataclass(frozen=True, slots=True)
class Window:
    """One window: from `from_us` until before `until_us`."""

    id: str
    from_us: int
    until_us: int

    @property
    def resets_at_us(self) -> int | None:
        return None if self.until_us == FOREVER_US else self.until_us


def window_at(window: BudgetWindow, at_us: int) -> Window:
    """The window of this kind that contains `at_us`."""
    if window == "total":
        return Window("total", 0, FOREVER_US)
    start = to_datetime(at_us).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        end = start + timedelta(days=1)
    elif window == "week":
        start -= timedelta(days=start.weekday())
        end = start + timedelta(days=7)
    else:
        start = start.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    return Window(start.strftime(_ID_FORMATS[window]), _us(start), _us(end))


def _us(at: datetime) -> int:
    return int(at.timestamp()) * US_PER_S


class WindowCache:
    """The current window of each kind, computed again only when it is over (or the clock was set back)."""

    def __init__(self) -> None:
        self._current: dict[BudgetWindow, Window] = {}

    def at(self, window: BudgetWindow, at_us: int) -> Window:
        current = self._current.get(window)
        if current is None or not current.from_us <= at_us < current.until_us:
            current = self._current[window] = window_at(window, at_us)
        return current
