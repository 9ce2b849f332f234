"""A mergeable sketch of a distribution, for percentiles of roll-ups.

DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019), without its limit on bins: bin `k` counts the values in (γ^(k-1), γ^k] with
γ = (1 + α) / (1 - α), and answers 2γ^k / (γ + 1), which is within α of each of them. A minute of
latencies takes 550 bins at most, so no bins need to be collapsed. Counts may also be taken out again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_LOG_MAX = 709.0
_ZERO = -(1 << 31)
"""The bin of values that are zero (or less: no duration is), below every other."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[int, int]).decode


class Sketch:
    """How many values are in each bin. Values are of any size; not thread-safe."""

    __slots__ = ("_bins",)

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._bins: dict[int, int] = {}
        for value in values:
            self.add(value)

    @property
    def count(self) -> int:
        return sum(self._bins.values())

    def add(self, value: float, times: int = 1) -> None:
        """Count a value; `times` -1 takes out one that was counted."""
        self._shift(_bin(value), times)

    def merge(self, other: Sketch) -> None:
        """Add what another counted. The result is as if all values had been counted here, in any order."""
        for each, times in other._bins.items():
            self._shift(each, times)

    def percentile(self, share: float) -> float | None:
        """The value below which a share (0-1) lies, within RELATIVE_ERROR; None without values.

        Between two order statistics it is interpolated linearly (Hyndman and Fan 1996, type 7).
        """
        total = self.count
        if not total:
            return None
        at = share * (total - 1)
        low, high = self._at(int(at)), self._at(min(int(at) + 1, total - 1))
        return low + (high - low) * (at - int(at))

    def pack(self) -> bytes:
        return _encode(self._bins)

    @classmethod
    def unpack(cls, packed: bytes) -> Sketch:
        sketch = cls()
        sketch._bins = _decode(packed)
        return sketch

    @property
    def bins(self) -> Mapping[int, int]:
        return self._bins

    def _shift(self, each: int, times: int) -> None:
        count = self._bins.get(each, 0) + times
        if count:
            self._bins[each] = count
        else:
            self._bins.pop(each, None)

    def _at(self, rank: int) -> float:
        """The order statistic of a rank from 0."""
        seen = 0
        for each in sorted(self._bins):
            seen += self._bins[each]
            if seen > rank:
                return _value(each)
        raise IndexError(rank)


def _bin(value: float) -> int:
    return math.ceil(math.log(value) / _LOG_GAMMA) if value > 0 else _ZERO


def _value(each: int) -> float:
    return 0.0 if each == _ZERO else 2 / (_GAMMA + 1) * math.exp(min(each * _LOG_GAMMA, _LOG_MAX))
