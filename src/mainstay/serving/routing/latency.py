"""A target's response time as a peak-sensitive, decaying average."""

from __future__ import annotations

import math
from typing import Final

DECAY_S: Final = 10.0
USUAL_WEIGHT: Final = 0.1


class PeakEwma:
    """Jumps to a peak at once, sinks slowly; without news it fades, so that a slow target gets another chance.

    As Finagle's load balancer does it (Twitter, `PeakEwma`): after `DECAY_S` an old value counts for 1/e.
    Seconds throughout; `now_s` never runs backwards. `usual_s` is for people: an average by call, the last one
    counting for a tenth, that neither jumps nor fades.
    """

    __slots__ = ("_at_s", "_value_s", "usual_s")

    def __init__(self) -> None:
        self._value_s: float | None = None
        self.usual_s: float | None = None
        self._at_s = 0.0

    def observe(self, seconds: float, now_s: float) -> None:
        usual_s = self.usual_s
        self.usual_s = seconds if usual_s is None else usual_s + USUAL_WEIGHT * (seconds - usual_s)
        self._weigh(seconds, now_s)

    def _weigh(self, seconds: float, now_s: float) -> None:
        if self._value_s is None or seconds > self._value_s:
            self._value_s = seconds
        else:
            kept = math.exp((self._at_s - now_s) / DECAY_S)
            self._value_s = self._value_s * kept + seconds * (1.0 - kept)
        self._at_s = now_s

    def at_least(self, seconds: float, now_s: float) -> None:
        """A wait that was cut off: it would have been this long or longer."""
        if seconds > (self.value_s(now_s) or 0.0):
            self._weigh(seconds, now_s)

    def value_s(self, now_s: float) -> float | None:
        """Faded to now; None before the first observation."""
        if self._value_s is None:
            return None
        return self._value_s * math.exp((self._at_s - now_s) / DECAY_S)
