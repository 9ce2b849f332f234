"""What is measured about an answer. A scorer gives a number, or None where it does not apply: never 0 for nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mainstay.core.money import NUSD_PER_USD
from mainstay.core.registry import Registry
from mainstay.evaluate.matching import fold, holds, overlap, row_holds, same_document, says
from mainstay.evaluate.types import Answered, Case


@dataclass(frozen=True, slots=True)
class Scorer:
    """One metric. `applies` says, from the case alone, whether a failed answer leaves a score missing.

    `expected`: an answer that came without this figure (an unknown price) counts as missing, too.
    """

    name: str
    help: str
    score: Callable[[Case, Answered], float | None]
    applies: Callable[[Case], bool]
    higher_is_better: bool = True
    expected: bool = False
    unit: Literal["share", "ms", "USD"] = "share"
    label: str = ""
    """What people read for the name, e.g. "right answers"; empty: the name, its underscores as spaces."""


scorers: Registry[Scorer] = Registry("scorer", "mainstay.scorers")


def answerable(case: Case) -> bool:
    return case.kind != "unanswerable"


def _always(case: Case) -> bool:
    return True


def _has_spans(case: Case) -> bool:
    return bool(case.spans)


def _exact(case: Case, answered: Answered) -> float | None:
    if not answerable(case) or not case.answer:
        return None
    return float(fold(answered.text).rstrip(".") == fold(case.answer).rstrip("."))


def _contains(case: Case, answered: Answered) -> float | None:
    if not case.accept:
        return None
    return float(all(any(says(answered.text, text) for text in group) for group in case.accept))


def _right_answer(case: Case, answered: Answered) -> float | None:
    if not answerable(case):
        return None
    return 0.0 if answered.refused else _contains(case, answered)


def _right_refusal(case: Case, answered: Answered) -> float | None:
    return None if answerable(case) else float(answered.refused)


def _wrong_refusal(case: Case, answered: Answered) -> float | None:
    return float(answered.refused) if answerable(case) else None


def _recall(case: Case, answered: Answered) -> float | None:
    if not case.spans:
        return None
    found = [
        any(
            same_document(passage, span.document) and holds(str(passage.get("text", "")), span.quote)
            for passage in answered.passages
        )
        for span in case.spans
    ]
    return sum(found) / len(found)


def _cited(case: Case, answered: Answered) -> float | None:
    if not case.spans or not answered.citations:
        return None
    right = [
        any(
            same_document(citation, span.document) and _quotes(str(citation.get("quote", "")), span.quote)
            for span in case.spans
        )
        for citation in answered.citations
    ]
    return sum(right) / len(right)


def _quotes(quote: str, expected: str) -> bool:
    return overlap(quote, expected) or row_holds(quote, expected)


def _cost(case: Case, answered: Answered) -> float | None:
    return None if answered.cost_nusd is None else answered.cost_nusd / NUSD_PER_USD


_SHIPPED = (
    Scorer("right_answer", "Answerable: holds one text of every accept group.", _right_answer, answerable,
           label="right answers"),
    Scorer("right_refusal", "Unanswerable: the app said that the sources do not say.", _right_refusal,
           lambda case: not answerable(case), label="right refusals"),
    Scorer("wrong_refusal", "Answerable, and yet refused.", _wrong_refusal, answerable, higher_is_better=False,
           label="wrong refusals"),
    Scorer("exact", "Equal to the reference answer after folding.", _exact,
           lambda case: answerable(case) and bool(case.answer), label="exact answers"),
    Scorer("contains", "Holds one text of every accept group, refused or not.", _contains,
           lambda case: bool(case.accept), label="expected texts"),
    Scorer("recall_at_k", "Share of the expected spans that were retrieved.", _recall, _has_spans,
           label="recall of the right passages"),
    Scorer("grounded", "Share of the model's sentences that the passages support.",
           lambda _case, answered: answered.grounded_share, answerable, label="supported sentences"),
    Scorer("cited", "Share of the citations that quote an expected span.", _cited, _has_spans,
           label="citations of the right span"),
    Scorer("latency_ms", "Time to the whole answer, milliseconds.", lambda _case, answered: answered.latency_ms,
           _always, higher_is_better=False, expected=True, unit="ms", label="latency"),
    Scorer("cost_usd", "Cost of the answer, dollars.", _cost, _always, higher_is_better=False, expected=True,
           unit="USD", label="cost"),
)  # fmt: skip
for _scorer in _SHIPPED:
    scorers.register(_scorer.name)(_scorer)

DEFAULT_METRICS: tuple[str, ...] = tuple(scorer.name for scorer in _SHIPPED)


def metric_label(metric: str) -> str:
    """What people read for a metric, also for one whose scorer is not installed here."""
    return (scorers.get(metric).label if metric in scorers else "") or metric.replace("_", " ")


def score(
    case: Case, answered: Answered, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, float | None]:
    """All metrics of one answer; all None when the case failed."""
    if answered.error is not None:
        return dict.fromkeys(metrics)
    return {name: scorers.get(name).score(case, answered) for name in metrics}


def missing(case: Case, answered: Answered, scored: Mapping[str, float | None], metric: str) -> bool:
    """Was a score asked for that is not there? A metric that does not apply is not missing."""
    scorer = scorers.get(metric)
    if scored.get(metric) is not None or not scorer.applies(case):
        return False
    return answered.error is not None or scorer.expected
