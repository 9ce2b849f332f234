"""From scores to decisions: means of a run, two runs side by side, and a gate for CI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mainstay.core.errors import InvalidInput, did_you_mean
from mainstay.evaluate.scorers import missing, scorers
from mainstay.evaluate.statistics import Difference, mean_ci, paired_difference
from mainstay.evaluate.types import Answered, Case, Comparison, Mean, Run

Verdict = Literal["better", "worse", "no difference shown", "not measured"]
NONZERO_MIN = 6
"""Cases that must differ before a verdict: with fewer, even a clean sweep is luck more often than 1 in 20."""


def summarise(
    cases: Sequence[Case],
    scores: Mapping[str, Mapping[str, float | None]],
    answers: Mapping[str, Answered],
    metrics: Sequence[str],
) -> dict[str, Mean]:
    """The mean of each metric over the cases that have a score; failed ones are counted as missing."""
    asked = [case for case in cases if case.id in answers]
    means = {}
    for metric in metrics:
        values = [v for case in asked if (v := scores[case.id].get(metric)) is not None]
        absent = sum(missing(case, answers[case.id], scores[case.id], metric) for case in asked)
        means[metric] = mean_ci(values, absent, shares=scorers.get(metric).unit == "share")
    return means


def compare(run_a: Run, run_b: Run) -> tuple[Comparison, ...]:
    """Paired over the cases both runs scored, metric by metric. Raises InvalidInput for different datasets."""
    if run_a.dataset_digest != run_b.dataset_digest:
        raise InvalidInput(
            f"Run {run_a.id} and run {run_b.id} are of different dataset versions.",
            fix="Run both targets on the same dataset.",
        )
    metrics = [m for m in run_a.means if m in run_b.means]
    return tuple(_compared(metric, run_a, run_b) for metric in metrics)


def _compared(metric: str, run_a: Run, run_b: Run) -> Comparison:
    pairs = [
        (a, b)
        for case in run_a.scores
        if (a := run_a.scores[case].get(metric)) is not None
        and (b := run_b.scores.get(case, {}).get(metric)) is not None
    ]
    difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    return Comparison(
        metric,
        run_a.means[metric],
        run_b.means[metric],
        difference.value,
        difference.ci95,
        _verdict(metric, difference),
    )


def _verdict(metric: str, difference: Difference) -> Verdict:
    if difference.value is None:
        return "not measured"
    if difference.ci95 is None or difference.nonzero < NONZERO_MIN:
        return "no difference shown"
    low, high = difference.ci95
    if low <= 0 <= high:
        return "no difference shown"
    return "better" if (low > 0) == scorers.get(metric).higher_is_better else "worse"


def gate(run: Run, thresholds: Mapping[str, float], missing_max: int = 0) -> tuple[bool, tuple[str, ...]]:
    """Does the run hold every bound: at least it where more is better, at most it where less is?

    A metric that was not measured, or misses more than `missing_max` scores, fails. The reasons say each result.
    """
    results = [_bound(run, metric, limit, missing_max) for metric, limit in thresholds.items()]
    return all(ok for ok, _ in results), tuple(reason for _, reason in results)


def _bound(run: Run, metric: str, limit: float, missing_max: int) -> tuple[bool, str]:
    if metric not in scorers:
        raise InvalidInput(f"No scorer is called {metric!r}.", fix=did_you_mean(metric, scorers))
    mean = run.means.get(metric)
    if mean is None or mean.value is None:
        return False, f"{metric} was not measured: failed."
    if mean.missing > missing_max:
        return False, f"{metric} misses {mean.missing} of {mean.scored + mean.missing} scores: failed."
    rising = scorers.get(metric).higher_is_better
    ok = mean.value >= limit if rising else mean.value <= limit
    bound = "at least" if rising else "at most"
    return ok, f"{metric} {mean.value:.4g}, {bound} {limit:g} asked: {'passed' if ok else 'failed'}."
