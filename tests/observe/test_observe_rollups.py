"""Roll-ups: equal to counting the rows, whatever order spans arrive in, also in files from before roll-ups."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from observe_times import DAY_NS, MS, NOON_NS

from mainstay.observe import Attr, RollUp, Span, TraceRow, TraceStore
from mainstay.observe.sketch import RELATIVE_ERROR, Sketch

HOUR_NS = 3_600_000_000_000
WITHIN = RELATIVE_ERROR * 1.000_001
"""The sketch's error, and that of floating point."""


def type_7(values: Sequence[float], share: float) -> float | None:
    """Hyndman and Fan's seventh: linear between order statistics."""
    if not values:
        return None
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def count_directly(rows: Sequence[TraceRow], bucket_ns: int, by_release: bool) -> list[RollUp]:
    groups: dict[tuple[int, str | None, int | None], list[TraceRow]] = {}
    for row in rows:
        start = row.start_ns - row.start_ns % bucket_ns
        groups.setdefault((start, row.app, row.release if by_release else None), []).append(row)
    ordered = sorted(groups, key=lambda group: (group[0], group[1] or "", group[2] or 0))
    return [_count(group, groups[group]) for group in ordered]


def _count(group: tuple[int, str | None, int | None], rows: Sequence[TraceRow]) -> RollUp:
    durations = [row.duration_ms for row in rows]
    ttfts = [row.ttft_ms for row in rows if row.ttft_ms is not None]
    shares = [row.grounded_share for row in rows if row.grounded_share is not None]
    return RollUp(
        *group,
        requests=len(rows),
        errors=sum(row.status == "error" for row in rows),
        cost_nusd=sum(row.cost_nusd or 0 for row in rows),
        cost_unknown=sum(row.cost_nusd is None for row in rows),
        input_tokens=sum(row.input_tokens or 0 for row in rows),
        output_tokens=sum(row.output_tokens or 0 for row in rows),
        duration_ms_p50=type_7(durations, 0.5),
        duration_ms_p95=type_7(durations, 0.95),
        ttft_ms_p50=type_7(ttfts, 0.5),
        ttft_ms_p95=type_7(ttfts, 0.95),
        grounded_share=sum(shares) / len(shares) if shares else None,
        guard_hits=sum(row.guard_hits for row in rows),
        grounded_answers=len(shares),
    )


MEASURED = ("duration_ms_p50", "duration_ms_p95", "ttft_ms_p50", "ttft_ms_p95", "grounded_share")


def assert_same(found: Sequence[RollUp], expected: Sequence[RollUp]) -> None:
    """Counts and sums exactly; percentiles within the sketch's error, the mean share within rounding."""
    blank = dict.fromkeys(MEASURED)
    assert [replace(r, **blank) for r in found] == [replace(r, **blank) for r in expected]  # type: ignore[arg-type]
    for one, other in zip(found, expected, strict=True):
        for name in MEASURED:
            value = getattr(other, name)
            error = 1e-8 if name == "grounded_share" else WITHIN
            assert getattr(one, name) == (
                None if value is None else pytest.approx(value, rel=error, abs=1e-9)
            )


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[Span]]:
    """Traces over a few hours around midnight, their spans dealt into batches in any order, some twice."""
    spans = []
    for number in range(draw(st.integers(1, 7))):
        trace_id = f"{number:032x}"
        start_ns = NOON_NS + DAY_NS // 2 + draw(st.integers(-2 * HOUR_NS, 2 * HOUR_NS))
        for index in range(draw(st.integers(1, 3))):
            begins = start_ns + draw(st.integers(0, HOUR_NS)) * bool(index)
            spans.append(
                Span(
                    trace_id,
                    f"{index + 1:016x}",
                    None if index == 0 else f"{1:016x}",
                    f"step {index}",
                    begins,
                    begins + draw(st.integers(0, 90_000 * MS)),
                    kind="server" if index == 0 else "internal",
                    status=draw(st.sampled_from(("ok", "error"))),
                    attributes=draw(attributes(root=index == 0)),
                )
            )
    order = draw(st.permutations([*spans, *draw(st.lists(st.sampled_from(spans), max_size=3))]))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=4)))
    return [list(order[a:b]) for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]


def attributes(root: bool) -> st.SearchStrategy[dict[str, object]]:
    known = {
        Attr.COST_NUSD: st.integers(0, 10**12),
        Attr.INPUT_TOKENS: st.integers(0, 10**6),
        Attr.OUTPUT_TOKENS: st.integers(0, 10**6),
        Attr.TTFT_MS: st.floats(0, 1e5),
        Attr.GROUNDED_SHARE: st.floats(0, 1),
        Attr.GUARD: st.lists(st.just({"check": "pii"}), max_size=2),
    }
    if root:
        known |= {Attr.APP: st.sampled_from(("a", "b")), Attr.RELEASE: st.integers(1, 2)}
    return st.fixed_dictionaries({}, optional=known)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
def test_roll_ups_equal_counting_the_rows_after_any_order_of_arrival(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Span]]
) -> None:
    store = TraceStore(tmp_path_factory.mktemp("observe"))
    try:
        for batch in batches:
            store.ingest(batch)
        rows = store.list(limit=1_000)
        for bucket_s, by_release in (
            (3_600, True),
            (3_600, False),
            (86_400, True),
            (900, True),
            (420, False),
        ):
            found = store.roll_ups(NOON_NS, NOON_NS + DAY_NS, bucket_s, by_release)
            assert_same(found, count_directly(rows, bucket_s * 1_000_000_000, by_release))
    finally:
        store.close()


def test_spans_that_come_again_are_counted_once(store, ask) -> None:
    spans = ask()
    store.ingest(spans)
    before = store.roll_ups(NOON_NS, NOON_NS + HOUR_NS)

    store.ingest([*spans, *spans])

    assert store.roll_ups(NOON_NS, NOON_NS + HOUR_NS) == before
    assert before[0].requests == 1


def test_a_late_span_moves_its_trace_to_the_group_it_belongs_to(store, ask) -> None:
    root, call = ask(start_ns=NOON_NS - 5 * MS)
    store.ingest([call])
    (alone,) = store.roll_ups(NOON_NS - HOUR_NS, NOON_NS + HOUR_NS)

    store.ingest([root])

    assert (alone.bucket_start_ns, alone.app, alone.requests) == (NOON_NS, None, 1)
    (whole,) = store.roll_ups(NOON_NS - HOUR_NS, NOON_NS + HOUR_NS)
    assert (whole.bucket_start_ns, whole.app, whole.requests) == (NOON_NS - HOUR_NS, "support-bot", 1)


def test_a_time_that_is_no_whole_hour_is_counted_to_the_nanosecond(store, ask) -> None:
    for minute in range(0, 240, 10):
        store.ingest(ask(start_ns=NOON_NS + minute * 60_000 * MS))
    for cut in (-1, 0, 1, 7 * 60_000 * MS):
        start_ns, end_ns = NOON_NS + 10 * 60_000 * MS + cut, NOON_NS + 200 * 60_000 * MS + cut

        (whole,) = store.roll_ups(start_ns, end_ns, bucket_s=None)
        hours = store.roll_ups(start_ns, end_ns)

        late = cut > 0  # then the trace at 10 minutes is out, and the one at 200 is in
        assert (whole.bucket_start_ns, whole.requests, whole.cost_nusd) == (start_ns, 19, 19 * 1_500)
        assert [hour.requests for hour in hours] == [5 - late, 6, 6, 2 + late]


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_from_before_roll_ups_is_counted_when_a_chart_needs_it(store, ask, version) -> None:
    for minute in range(5):
        store.ingest(ask(start_ns=NOON_NS + minute * 60_000 * MS))
    expected = store.roll_ups(NOON_NS, NOON_NS + HOUR_NS)
    as_of_version(store, version)

    assert store.roll_ups(NOON_NS, NOON_NS + HOUR_NS) == expected


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_from_before_roll_ups_is_counted_when_it_is_written(store, ask, version) -> None:
    root, call = ask()
    store.ingest([call])
    as_of_version(store, version)

    store.ingest([root])

    (found,) = store.roll_ups(NOON_NS, NOON_NS + HOUR_NS)
    assert (found.app, found.requests, found.cost_nusd) == ("support-bot", 1, 1_500)


def as_of_version(store: TraceStore, version: int) -> None:
    """Make the day's file what an earlier program wrote: without roll-ups, or with those of hours only."""
    store.close()
    with sqlite3.connect(store._path("2026-09-21")) as connection:
        connection.executescript(f"DROP TABLE roll_ups; PRAGMA user_version = {version};")
        if version == 2:
            connection.executescript(
                "CREATE TABLE roll_ups (hour_ns INTEGER); CREATE INDEX roll_ups_by_hour ON roll_ups (hour_ns);"
            )
    connection.close()


def test_absurd_counts_from_outside_do_not_stop_the_writing(store, make_span) -> None:
    absurd = {
        Attr.OPERATION: "chat",
        Attr.INPUT_TOKENS: 2**62,
        Attr.TTFT_MS: 1.7e308,
        Attr.GROUNDED_SHARE: 1e308,
    }
    root = make_span()
    calls = [make_span(trace_id=root.trace_id, parent_id=root.span_id, attributes=absurd) for _ in range(3)]
    store.ingest([root, *calls])

    store.ingest([make_span(attributes=absurd)])

    (found,) = store.roll_ups(NOON_NS, NOON_NS + HOUR_NS)
    assert (found.requests, found.input_tokens) == (2, 2**63 - 1)
    assert found.grounded_share == 1.0


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_a_sketchs_percentile_is_within_its_error(values: list[float], share: float) -> None:
    found = Sketch(values).percentile(share)

    assert found == pytest.approx(type_7(values, share), rel=WITHIN, abs=1e-300)


@given(st.lists(st.floats(0, 1e9)), st.lists(st.floats(0, 1e9)))
def test_sketches_merge_and_give_back_as_if_counted_together(one: list[float], other: list[float]) -> None:
    together = Sketch([*one, *other])
    merged = Sketch(one)
    merged.merge(Sketch.unpack(Sketch(other).pack()))
    assert merged.bins == together.bins

    for value in other:
        merged.add(value, -1)

    assert merged.bins == Sketch(one).bins
