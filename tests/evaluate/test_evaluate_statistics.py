import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.evaluate import Mean, mean_ci, paired_difference, sign_test, wilson
from mainstay.evaluate.statistics import bootstrap_ci


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_limits(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("rises", "falls", "p"), [(6, 0, 0.03125), (5, 0, 0.0625), (8, 2, 0.109375), (3, 3, 1.0)]
)
def test_the_sign_test_gives_binomial_tails(rises: int, falls: int, p: float) -> None:
    assert sign_test(rises, falls) == pytest.approx(p)
    assert sign_test(falls, rises) == pytest.approx(p)


def test_the_sign_test_says_nothing_when_nothing_differs() -> None:
    assert sign_test(0, 0) is None


def test_the_bootstrap_comes_near_the_normal_interval_of_a_large_sample() -> None:
    scores = np.random.default_rng(1).normal(5.0, 2.0, 400)
    half = 1.96 * scores.std(ddof=1) / 20
    assert bootstrap_ci(scores) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.015)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_ci(random.uniform(0, 1, 40), draws=300)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_no_scores_are_no_mean() -> None:
    assert mean_ci([], missing=3) == Mean(None, 0, 3, None)
    assert mean_ci([0.7]) == Mean(0.7, 1, 0, None)


def test_all_right_is_not_certainty() -> None:
    mean = mean_ci([1.0] * 10)
    assert mean.value == 1.0
    assert mean.ci95 == pytest.approx((0.7225, 1.0), abs=1e-4)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_interval_lies_within_the_scores_and_is_repeatable(scores: list[float]) -> None:
    first, second = mean_ci(scores, draws=100), mean_ci(scores, draws=100)
    assert first == second
    assert first.ci95 is not None
    assert -1e-9 <= first.ci95[0] <= first.ci95[1] <= 1 + 1e-9


def test_pairing_sees_what_two_means_hide() -> None:
    random = np.random.default_rng(3)
    a = random.normal(0, 10, 50)
    b = a + 0.5 + random.normal(0, 0.1, 50)
    paired = paired_difference(list(a), list(b))
    assert paired.value == pytest.approx(0.5, abs=0.1)
    assert paired.ci95 is not None
    assert paired.ci95[0] > 0.4
    assert (paired.pairs, paired.nonzero) == (50, 50)


def test_unequal_lengths_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0])
