"""How evaluations speak to people."""

from mainstay.cli.evaluations import show_difference


def test_a_difference_is_shown_in_the_unit_of_its_metric() -> None:
    assert show_difference("latency_ms", -6210.0) == "-6.21 s"
    assert show_difference("latency_ms", 40.0) == "+40 ms"
    assert show_difference("cost_usd", -0.0021) == "-$0.0021"
    assert show_difference("grounded", 0.0312) == "+0.031"
