from __future__ import annotations

import pytest


class FakeClock:
    """Microseconds since 1970 that move only when told."""

    def __init__(self, at_us: int = 1_800_000_000_000_000) -> None:
        self.at_us = at_us

    def __call__(self) -> int:
        return self.at_us

    def pass_minutes(self, minutes: int) -> None:
        self.at_us += minutes * 60_000_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
