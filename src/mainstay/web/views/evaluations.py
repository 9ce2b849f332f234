"""Evaluation runs: means with their intervals, cases, and a paired comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from mainstay.core.money import NUSD_PER_USD, show_usd
from mainstay.evaluate import EvalStore, compare, metric_label, scorers
from mainstay.evaluate.types import Answered, Case, Comparison, Mean, Run
from mainstay.web import formats

UNITS = {"latency_ms": "ms", "cost_usd": "usd"}
"""Metrics that are not shares of 1, and how they read."""


@dataclass(frozen=True, slots=True)
class CaseLine:
    """`case` None: the dataset version is no longer stored."""

    id: str
    case: Case | None
    scores: Mapping[str, float | None]
    answer: Answered | None


@dataclass(frozen=True, slots=True)
class RunView:
    run: Run
    metrics: tuple[str, ...]
    cases: tuple[CaseLine, ...]
    others: tuple[Run, ...]
    against: Run | None
    comparisons: tuple[Comparison, ...]


def run_view(store: EvalStore, run_id: str, against_id: str | None) -> RunView:
    """`against` must be a run on the same dataset version. Raises NotFound."""
    run = store.run(run_id)
    others = tuple(r for r in store.runs() if r.dataset_digest == run.dataset_digest and r.id != run.id)
    against = store.run(against_id) if against_id else None
    metrics = metric_names(run)
    asked = {case.id: case for case in store.dataset(run.dataset, run.dataset_digest).cases}
    cases = tuple(CaseLine(c, asked.get(c), run.scores[c], run.answers.get(c)) for c in sorted(run.scores))
    comparisons = tuple(compare(against, run)) if against else ()
    return RunView(run, metrics, cases, others, against, comparisons)


def metric_names(run: Run) -> tuple[str, ...]:
    """Shares first, then measures with units; each group by name."""
    names = set(run.means) or {m for scores in run.scores.values() for m in scores}
    return tuple(sorted(names, key=lambda m: (m in UNITS, m)))


HEADLINE = ("right_answer", "right_refusal", "recall_at_k", "grounded")


def headline_metrics(run: Run) -> tuple[str, ...]:
    """The few that a list of runs shows: the main four where measured, else the first shares."""
    measured = [m for m in metric_names(run) if is_share(m) and _measured(run, m)]
    return tuple([m for m in HEADLINE if m in measured] or measured[:4])


def _measured(run: Run, metric: str) -> bool:
    mean = run.means.get(metric)
    return mean is not None and mean.value is not None


def metric_name(metric: str) -> str:
    """As people read it, here and in a terminal; the unit stands with each number."""
    return metric_label(metric)


def case_count(run: Run) -> int | None:
    """Every case has a latency, scored or missing; None for a run that measured nothing."""
    return max((mean.scored + mean.missing for mean in run.means.values()), default=None)


def metric_help(metric: str) -> str:
    return scorers.get(metric).help if metric in scorers else ""


def is_share(metric: str) -> bool:
    return metric not in UNITS


def mean_text(metric: str, mean: Mean | None) -> Markup:
    """`0.91 [0.88–0.94]`, with units where the metric has them; a dash when nothing was scored."""
    if mean is None or mean.value is None:
        return formats.dash("no case was scored")
    value = _value(metric, mean.value)
    if mean.ci95 is None:
        return Markup("<b>{}</b>").format(value)
    low, high = (_value(metric, end) for end in mean.ci95)
    return Markup('<b>{}</b> <span class="ci">[{}–{}]</span>').format(value, low, high)


def difference_text(metric: str, comparison: Comparison) -> Markup:
    if comparison.difference is None:
        return formats.dash("no case was scored by both")
    value = Markup("<b>{}{}</b>").format(
        "+" if comparison.difference >= 0 else "−", _value(metric, abs(comparison.difference))
    )
    if comparison.ci95 is None:
        return value
    low, high = (("+" if v >= 0 else "−") + _value(metric, abs(v)) for v in comparison.ci95)
    return Markup('{} <span class="ci">[{} to {}]</span>').format(value, low, high)


def score_text(metric: str, value: float | None) -> Markup:
    if value is None:
        return formats.dash("no score")
    return Markup("{}").format(_value(metric, value))


def _value(metric: str, value: float) -> str:
    unit = UNITS.get(metric)
    if unit == "ms":
        return formats.duration_text(value)
    if unit == "usd":
        return show_usd(round(value * NUSD_PER_USD))
    return formats.score_text(value)
