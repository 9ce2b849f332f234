"""Evaluate: datasets, scorers, runs, statistics, comparisons and gates.

`load_dataset` reads the questions, `run_dataset` asks an app and scores its answers, `compare` sets two runs
side by side, `gate` decides for CI, and `EvalStore` keeps it all.
"""

from mainstay.evaluate.compare import compare, gate, summarise
from mainstay.evaluate.dataset import case_body, case_from_body, dataset_digest, load_dataset
from mainstay.evaluate.run import run_dataset, run_id_of
from mainstay.evaluate.scorers import DEFAULT_METRICS, Scorer, metric_label, score, scorers
from mainstay.evaluate.statistics import Difference, mean_ci, paired_difference, sign_test, wilson
from mainstay.evaluate.store import EvalStore
from mainstay.evaluate.types import (
    Answered,
    AppCaller,
    Case,
    Comparison,
    DatasetVersion,
    ExpectedSpan,
    Mean,
    Run,
)

__all__ = [
    "DEFAULT_METRICS",
    "Answered",
    "AppCaller",
    "Case",
    "Comparison",
    "DatasetVersion",
    "Difference",
    "EvalStore",
    "ExpectedSpan",
    "Mean",
    "Run",
    "Scorer",
    "case_body",
    "case_from_body",
    "compare",
    "dataset_digest",
    "gate",
    "load_dataset",
    "mean_ci",
    "metric_label",
    "paired_difference",
    "run_dataset",
    "run_id_of",
    "score",
    "scorers",
    "sign_test",
    "summarise",
    "wilson",
]
