"""A process's memory, files and threads, once a second; and whether memory was flat."""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

WARM_UP_SHARE = 1 / 3
BLOCKS = 10
T_95 = 1.86
"""Student's t, one-sided 95 %, 8 degrees of freedom: a line through 10 blocks."""
SLOPE_MAX_MB_H = 1.0
GROWTH_MIN_MB = 1.0
"""The allocator takes memory in pieces of up to 1 MB: growth below that says nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    resident_mb: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through the medians of ten equal blocks after warm-up. `low` and `high`: one-sided 95 % bounds."""

    mb_per_h: float
    low: float
    high: float
    grown_mb: float
    """Between the first and the last block."""

    @property
    def proved_mb_per_h(self) -> float:
        """The bound that growth is above; 0 when what was grown is within the allocator's grain."""
        return max(0.0, self.low) if self.grown_mb > GROWTH_MIN_MB else 0.0

    @property
    def flat(self) -> bool:
        return self.proved_mb_per_h <= SLOPE_MAX_MB_H


@dataclass(slots=True)
class Watch:
    pid: int
    samples: list[Sample] = field(default_factory=list)

    async def run(self, ending: asyncio.Event) -> None:
        process, loop = psutil.Process(self.pid), asyncio.get_running_loop()
        started = loop.time()
        while not ending.is_set():
            try:
                memory, files = process.memory_info().rss / 1e6, process.num_fds()
                self.samples.append(Sample(loop.time() - started, memory, files, process.num_threads()))
            except psutil.Error:  # it has ended, which its exit status tells
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), 1.0)

    @property
    def warm(self) -> Sequence[Sample]:
        """Those after warm-up: caches full, pools open, every code path taken."""
        return self.samples[int(len(self.samples) * WARM_UP_SHARE) :]


def trend(samples: Sequence[Sample]) -> Trend | None:
    """None with fewer than two samples a block."""
    size = len(samples) // BLOCKS
    if size < 2:
        return None
    blocks = [samples[i * size : (i + 1) * size] for i in range(BLOCKS)]
    hours = [statistics.fmean(s.at_s for s in block) / 3600 for block in blocks]
    memory = [statistics.median(s.resident_mb for s in block) for block in blocks]
    slope, intercept = statistics.linear_regression(hours, memory)
    rest = sum((y - slope * x - intercept) ** 2 for x, y in zip(hours, memory, strict=True))
    spread = sum((x - statistics.fmean(hours)) ** 2 for x in hours)
    margin = T_95 * math.sqrt(rest / (BLOCKS - 2) / spread)
    return Trend(slope, slope - margin, slope + margin, memory[-1] - memory[0])


def grown(samples: Sequence[Sample], what: str) -> float:
    """How much more `files` or `threads` there were in the last tenth than in the first, by medians."""
    size = max(1, len(samples) // 10)
    values = [float(getattr(s, what)) for s in samples]
    return statistics.median(values[-size:]) - statistics.median(values[:size])
