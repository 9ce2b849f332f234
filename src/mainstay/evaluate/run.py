"""Ask an app every question of a dataset and score the answers; what is stored is not asked again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mainstay.core.content import digest_json, short
from mainstay.core.errors import ConfigError, Unavailable
from mainstay.evaluate.dataset import dataset_digest
from mainstay.evaluate.scorers import DEFAULT_METRICS, score
from mainstay.evaluate.store import EvalStore
from mainstay.evaluate.types import Answered, AppCaller, Case, Run
from mainstay.govern.types import Identity

Progress = Callable[[int], None]
"""Called with the number of cases done, those of an earlier attempt included."""
_log = logging.getLogger(__name__)


async def run_dataset(
    cases: Sequence[Case],
    target: str,
    call: AppCaller,
    *,
    store: EvalStore,
    actor: Identity,
    dataset: str,
    target_digest: str = "",
    nonce: str = "",
    concurrency: int = 4,
    metrics: Sequence[str] = DEFAULT_METRICS,
    progress: Progress | None = None,
) -> Run:
    """Run to the end and return it whole. A case that fails is recorded with its error and has no scores.

    `target_digest` is of the release behind `target`, so that a new release is a new run. The same cases,
    target, digest, metrics and `nonce` continue a killed run and give back a finished one; another nonce starts
    afresh. At most `concurrency` cases are asked at once. Cancelling keeps what is stored.
    """
    if concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}.", fix="Use 1 or more.")
    run_id = run_id_of(cases, target, target_digest, nonce, metrics)
    await asyncio.to_thread(store.start_run, actor, run_id, dataset, cases, target, tuple(metrics))
    if not await asyncio.to_thread(store.finished, run_id):
        stored = await asyncio.to_thread(store.answers, run_id)
        # Errors are often passing troubles, so a continued run asks those cases again.
        waiting = [case for case in cases if case.id not in stored or stored[case.id].error is not None]
        await _Runner(call, store, run_id, target, metrics, len(cases), progress).work(waiting, concurrency)
        await asyncio.to_thread(store.finish, actor, run_id)
    return await asyncio.to_thread(store.run, run_id)


def run_id_of(
    cases: Sequence[Case],
    target: str,
    target_digest: str,
    nonce: str,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> str:
    parts = [dataset_digest(cases), target, target_digest, list(metrics), nonce]
    return f"run_{short(digest_json(parts))}"


@dataclass(frozen=True, slots=True)
class _Runner:
    call: AppCaller
    store: EvalStore
    run_id: str
    target: str
    metrics: Sequence[str]
    total: int
    progress: Progress | None

    async def work(self, waiting: Sequence[Case], concurrency: int) -> None:
        """Workers share one iterator, so that a slow case holds up only its own worker."""
        remaining = iter(waiting)
        left = [len(waiting)]
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(waiting))):
                group.create_task(self._worker(remaining, left))
        if left[0]:  # a call that was cancelled from within takes its worker along, silently
            raise Unavailable(
                f"Run {self.run_id} stopped with {left[0]} of {self.total} cases not asked.",
                fix="Start it again: it continues where it was.",
            )

    async def _worker(self, remaining: Iterator[Case], left: list[int]) -> None:
        for case in remaining:
            answered = await self._ask(case)
            scores = score(case, answered, self.metrics)
            await asyncio.to_thread(self.store.save_case, self.run_id, case.id, answered, scores)
            left[0] -= 1
            if self.progress is not None:
                self.progress(self.total - left[0])

    async def _ask(self, case: Case) -> Answered:
        started = time.perf_counter()
        try:
            return await self.call(self.target, case.question)
        except Exception as error:  # boundary: one failed case must not end the run
            _log.warning("case %s of %s failed", case.id, self.run_id, exc_info=True)
            latency_ms = (time.perf_counter() - started) * 1e3
            return Answered(
                text="",
                refused=False,
                citations=(),
                passages=(),
                grounded_share=None,
                answered_by="",
                cost_nusd=None,
                latency_ms=latency_ms,
                trace_id="",
                error=f"{type(error).__name__}: {error}",
            )
