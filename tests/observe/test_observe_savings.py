"""What caches saved, counted by the hour in the days' files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.core.ids import new_span_id, new_trace_id
from mainstay.observe import Savings, Span, TraceStore
from mainstay.observe.types import AttributeValue
from mainstay.observe.values import INT64_MAX

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
NOON_NS = 20_000 * DAY_NS + 12 * HOUR_NS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    opened = TraceStore(tmp_path, clock=lambda: (NOON_NS + 30 * DAY_NS) // 1000)
    yield opened
    opened.close()


def hit(start_ns: int, saved: AttributeValue) -> Span:
    attributes = {"mainstay.cache": "hit", "mainstay.saved_nusd": saved}
    return Span(new_trace_id(), new_span_id(), None, "chat", start_ns, start_ns + 1, attributes=attributes)


def test_savings_are_summed_over_the_days_of_a_time(store: TraceStore) -> None:
    store.ingest(
        [hit(NOON_NS, 700), hit(NOON_NS + 5, 300), hit(NOON_NS + DAY_NS, 40), hit(NOON_NS - DAY_NS, 9)]
    )

    assert store.savings(NOON_NS, NOON_NS + 2 * DAY_NS) == Savings(3, 1_040)
    assert store.savings(NOON_NS - DAY_NS, NOON_NS) == Savings(1, 9)
    assert store.savings(NOON_NS + 3 * DAY_NS, NOON_NS + 4 * DAY_NS) == Savings()


def test_a_span_that_comes_again_is_counted_once(store: TraceStore) -> None:
    span = hit(NOON_NS, 700)
    store.ingest([span])
    store.ingest([span, hit(NOON_NS, 1)])
    assert store.savings(NOON_NS, NOON_NS + HOUR_NS) == Savings(2, 701)


@pytest.mark.parametrize("said", [None, 0, -5, "much", 2**80])
def test_what_is_no_amount_is_not_counted(store: TraceStore, said: AttributeValue) -> None:
    store.ingest([hit(NOON_NS, said)])
    assert store.savings(NOON_NS, NOON_NS + HOUR_NS) == Savings()


def test_sums_beyond_what_a_file_holds_stop_there(store: TraceStore) -> None:
    store.ingest([hit(NOON_NS, 2**62)])
    store.ingest([hit(NOON_NS, 2**62)])
    assert store.savings(NOON_NS, NOON_NS + HOUR_NS) == Savings(2, INT64_MAX)


def test_a_file_from_before_has_saved_nothing_and_counts_from_now_on(
    store: TraceStore, tmp_path: Path
) -> None:
    store.ingest([hit(NOON_NS, None)])
    store.close()
    (day,) = (tmp_path / "days").glob("*.db")
    with sqlite3.connect(day) as before:
        before.execute("DROP TABLE savings")
    before.close()

    assert store.savings(NOON_NS, NOON_NS + HOUR_NS) == Savings()
    store.ingest([hit(NOON_NS, 12)])
    assert store.savings(NOON_NS, NOON_NS + HOUR_NS) == Savings(1, 12)
