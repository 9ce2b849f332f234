"""How numbers, times, filters and charts read."""

from __future__ import annotations

import re

import pytest

from mainstay.observe import TraceFilter
from mainstay.web import charts, formats
from mainstay.web.templating import TEMPLATES, cited
from mainstay.web.views.trace_query import parse


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.01, "<0.1 ms"),
        (0.4, "0.4 ms"),
        (9.96, "10 ms"),
        (312.4, "312 ms"),
        (999.6, "1.00 s"),
        (1240, "1.24 s"),
        (12_400, "12.4 s"),
        (125_000, "2 min 5 s"),
    ],
)
def test_a_duration_has_three_figures_and_a_unit(ms: float, text: str) -> None:
    assert formats.duration_text(ms) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (947, "947"), (9_999, "9,999"), (12_400, "12.4k"), (3_100_000, "3.1M")]
)
def test_a_count_is_exact_while_it_is_short(value: int, text: str) -> None:
    assert formats.count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.0004, "0.1 %"),
        (0.25, "25 %"),
        (0.9996, "99.9 %"),
        (1.0, "100 %"),
        (1.0004, "100.1 %"),
        (1.055, "106 %"),
        (12.5, "1,250 %"),
    ],
)
def test_a_share_is_all_or_nothing_only_when_it_is(value: float, text: str) -> None:
    assert formats.share_text(value) == text


@pytest.mark.parametrize(
    "show", [formats.duration, formats.count, formats.money, formats.share, formats.score]
)
def test_what_was_not_measured_is_a_dash_with_its_reason(show: object) -> None:
    shown = show(None, "the <answer> was not streamed")  # type: ignore[operator]
    assert "–" in shown
    assert 'title="the &lt;answer&gt; was not streamed"' in shown
    assert "0" not in shown


def test_a_time_is_relative_to_read_and_absolute_on_hover() -> None:
    shown = formats.when(1_795_000_000_000_000, 1_795_000_180_000_000)
    assert ">3 min ago</time>" in shown
    assert 'datetime="2026-11-18T' in shown


def test_digests_and_money_are_short_in_a_brief() -> None:
    value = {
        "digest": "sha256:" + "ab" * 32,
        "budget_nusd": 2_500_000_000,
        "models": ["a", "b"],
        "none": None,
    }
    assert formats.brief(value) == "digest abababababab, budget_nusd $2.50, models a, b"


def test_a_filter_takes_terms_phrases_and_words() -> None:
    found = parse(
        'app:bot release:r2 status:error ms>2000 cost>$0.01 guarded:yes "late ferry" https://x refund'
    )
    assert found.filter == TraceFilter(
        app="bot",
        release=2,
        status="error",
        duration_ms_min=2000,
        cost_nusd_min=10_000_000,
        guarded=True,
        text="late ferry https://x refund",
    )
    assert found.problems == ()


@pytest.mark.parametrize(
    "text", ["release:two", "status:fine", "cost>cheap", "cost>NaN", "ms>soon", "guarded:perhaps"]
)
def test_a_term_that_makes_no_sense_is_left_out_and_told(text: str) -> None:
    found = parse(text)
    assert found.filter == TraceFilter()
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{text} was left out: write ")


@pytest.mark.parametrize("text", ["foo:bar", "ms:2000", "app>bot", "Status:error"])
def test_an_unknown_filter_is_left_out_and_the_known_ones_are_listed(text: str) -> None:
    found = parse(f"{text} ferry")
    assert found.filter == TraceFilter(text="ferry")
    assert found.problems[0].startswith(f"{text} is no filter and was left out: filters are app:, release:,")


@pytest.mark.parametrize("text", ["ms>", "app:", 'user:""'])
def test_a_filter_without_a_value_is_told(text: str) -> None:
    found = parse(text)
    assert found.filter == TraceFilter()
    assert found.problems[0].startswith(f"{text} was left out: write ")


def test_a_quoted_filter_is_searched_for() -> None:
    assert parse('"foo:bar"').filter == TraceFilter(text="foo:bar")


def test_marks_of_known_sources_are_links_and_all_else_is_text() -> None:
    shown = cited("Yes [1], <b>no</b> [7].", [{"number": 1}], "x-")
    assert '<a class="cite" href="#x-cite-1"' in shown
    assert "&lt;b&gt;no&lt;/b&gt; [7]." in shown


def test_a_line_has_a_gap_where_nothing_was_measured() -> None:
    shown = charts.spark_line([1.0, 2.0, None, 3.0, None, 2.0, 2.0], "Latency")
    assert shown.count("<polyline") == 2
    assert shown.count('class="dot"') == 1


def test_bars_stand_on_zero_and_end_below_the_top_line() -> None:
    shown = charts.bar_chart([charts.Bar("1 Nov", 5.0, "$5"), charts.Bar("2 Nov", None, "–")], "Cost", str)
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', shown)]
    assert heights == [99.0, 0.0]
    assert "<span>5.0</span>" in shown


@pytest.mark.parametrize("label", ['"><script>', "a & b"])
def test_labels_in_charts_are_escaped(label: str) -> None:
    bar = charts.Bar(label, 1.0, label)
    for shown in (
        charts.spark_line([1.0], label),
        charts.spark_bars([1.0], label),
        charts.bar_chart([bar], label, str),
    ):
        assert label not in shown


def test_every_template_compiles_and_escapes() -> None:
    assert TEMPLATES.autoescape is True
    for name in TEMPLATES.list_templates():
        TEMPLATES.get_template(name)
