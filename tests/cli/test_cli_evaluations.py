"""How evaluations speak to people."""

import pytest

from mainstay.cli.evaluations import render_comparison, show_difference
from mainstay.evaluate import Comparison, Mean


def test_a_difference_is_shown_in_the_unit_of_its_metric() -> None:
    assert show_difference("latency_ms", -6210.0) == "-6.21 s"
    assert show_difference("latency_ms", 40.0) == "+40 ms"
    assert show_difference("cost_usd", -0.0021) == "-$0.0021"
    assert show_difference("grounded", 0.0312) == "+0.031"


def test_a_comparison_says_what_a_verdict_needs(capsys: pytest.CaptureFixture[str]) -> None:
    mean = Mean(0.5, 4, 0, (0.2, 0.8))
    render_comparison((Comparison("grounded", mean, mean, 0.0, (-0.1, 0.1), "no difference shown"),))
    printed = capsys.readouterr()
    assert "no difference shown" in printed.out
    assert "at least 6 cases that differ" in printed.err
