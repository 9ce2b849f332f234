"""The trace store: lists, filters, pages, search, late spans, roll-ups, retention."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from observe_times import DAY_NS, MS, NOON_NS

from mainstay.core.errors import NotFound
from mainstay.observe import Attr, TraceFilter, TraceStore


def test_a_trace_is_listed_and_opened_as_it_was_recorded(store, ask) -> None:
    spans = ask(attributes={Attr.USER: "ann", Attr.CACHE: "miss", Attr.GROUNDED_SHARE: 0.5})

    assert store.ingest(spans) == 2

    (row,) = store.list()
    assert (row.app, row.release, row.user, row.cache) == ("support-bot", 3, "ann", "miss")
    assert (row.question, row.answer) == ("How long is leave?", "Thirty days.")
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (120, 30, 1_500)
    assert (row.model, row.provider) == ("gpt-4o-mini", "openai")
    assert (row.duration_ms, row.ttft_ms, row.grounded_share) == (100.0, 40.0, 0.5)
    assert (row.status, row.spans) == ("ok", 2)
    assert store.get(row.trace_id) == spans
    assert store.row(row.trace_id) == row
    assert store.apps() == ["support-bot"]


def test_an_empty_store_answers(store) -> None:
    assert store.list() == []
    assert store.apps() == []
    assert store.roll_ups(0, NOON_NS) == []
    with pytest.raises(NotFound, match="No trace abc"):
        store.get("abc")


def test_files_that_another_process_is_just_making_are_empty(store, tmp_path: Path) -> None:
    (tmp_path / "observe" / "days").mkdir(parents=True)
    (tmp_path / "observe" / "days" / "2026-09-21.db").touch()
    (tmp_path / "observe" / "index.db").touch()

    assert store.list() == []
    assert store.apps() == []
    with pytest.raises(NotFound):
        store.get("abc")


def test_spans_that_come_again_change_nothing(store, ask) -> None:
    spans = ask()
    store.ingest(spans)
    (before,) = store.list()

    assert store.ingest([*spans, *spans]) == 0

    assert store.list() == [before]
    assert store.get(before.trace_id) == spans


@pytest.mark.parametrize("root_first", [True, False])
def test_a_row_is_the_same_whichever_span_arrives_first(store, ask, root_first) -> None:
    root, call = ask()
    together = TraceStore(store._days.parent / "other")
    together.ingest([root, call])

    for span in (root, call) if root_first else (call, root):
        store.ingest([span])

    assert store.list() == together.list()
    together.close()


@pytest.mark.parametrize("outer_first", [True, False])
def test_a_request_inside_another_programs_trace_is_listed_as_our_apps(
    store, ask, make_span, outer_first
) -> None:
    outer = make_span(
        name="POST /checkout",
        start_ns=NOON_NS - 50 * MS,
        end_ns=NOON_NS + 200 * MS,
        resource={"service.name": "web-shop", "deployment.environment.name": "shop-eu"},
        attributes={
            Attr.INPUT_MESSAGES: [{"role": "user", "content": "the shop's own prompt"}],
            Attr.OUTPUT_MESSAGES: [{"role": "assistant", "content": "what the shop made of it"}],
            Attr.USER: "ann",
        },
    )
    root, call = ask(
        trace_id=outer.trace_id, parent_id=outer.span_id, attributes={Attr.ENVIRONMENT: "production"}
    )

    for batch in ([outer], [root, call]) if outer_first else ([root, call], [outer]):
        store.ingest(batch)

    (row,) = store.list()
    assert (row.app, row.release, row.environment) == ("support-bot", 3, "production")
    assert (row.question, row.answer) == ("How long is leave?", "Thirty days.")
    assert (row.name, row.user, row.duration_ms) == ("POST /checkout", "ann", 250.0)
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (120, 30, 1_500)
    (counted,) = store.roll_ups(NOON_NS - DAY_NS, NOON_NS + DAY_NS)
    assert (counted.app, counted.release) == ("support-bot", 3)


def test_another_programs_trace_without_our_app_is_listed_as_its_own(store, make_span) -> None:
    root = make_span(
        resource={"service.name": "web-shop", "deployment.environment.name": "shop-eu"},
        attributes={Attr.INPUT_MESSAGES: [{"role": "user", "content": "Which shoes?"}]},
    )
    call = make_span(
        trace_id=root.trace_id,
        parent_id=root.span_id,
        resource=root.resource,
        attributes={
            Attr.OPERATION: "chat",
            Attr.OUTPUT_MESSAGES: [{"role": "assistant", "content": "The red ones."}],
        },
    )

    store.ingest([root, call])

    (row,) = store.list()
    assert (row.app, row.release, row.environment) == ("web-shop", None, "shop-eu")
    assert (row.question, row.answer) == ("Which shoes?", "The red ones.")


def test_a_trace_over_midnight_is_found_whole(store, ask, make_span) -> None:
    midnight = NOON_NS + DAY_NS // 2
    root, call = ask(start_ns=midnight - 50 * MS)
    late = make_span(trace_id=root.trace_id, parent_id=root.span_id, start_ns=midnight + 5 * MS)

    store.ingest([root, call])
    store.ingest([late])

    assert store.days() == ["2026-09-21"]
    assert store.get(root.trace_id) == [root, call, late]
    assert [row.spans for row in store.list()] == [3]


def test_an_earlier_start_that_comes_late_keeps_the_trace_in_one_file(store, ask) -> None:
    midnight = NOON_NS + DAY_NS // 2
    root, call = ask(start_ns=midnight - 5 * MS)

    store.ingest([call])
    store.ingest([root])

    assert store.days() == ["2026-09-22"]
    (row,) = store.list(TraceFilter(start_ns_min=midnight - DAY_NS, start_ns_max=midnight - 1))
    assert (row.start_ns, row.spans) == (root.start_ns, 2)


def test_pages_go_through_days_newest_first_without_gap_or_repeat(store, ask) -> None:
    starts = [NOON_NS + (i % 3) * DAY_NS + (i // 2) * MS for i in range(25)]
    for start_ns in starts:
        store.ingest(ask(start_ns=start_ns))

    seen, before = [], None
    while page := store.list(before=before, limit=4):
        seen += page
        before = page[-1].trace_id

    assert [row.start_ns for row in seen] == sorted(starts, reverse=True)
    assert len({row.trace_id for row in seen}) == 25
    assert store.list(limit=7) == seen[:7]


FILTERS = [
    (TraceFilter(app="support-bot"), {"plain", "slow", "failed", "guarded", "user"}),
    (TraceFilter(app="nobody"), set()),
    (TraceFilter(release=4), {"release"}),
    (TraceFilter(model="local/smollm2"), {"release"}),
    (TraceFilter(status="error"), {"failed"}),
    (TraceFilter(status="ok", guarded=True), {"guarded"}),
    (TraceFilter(guarded=False), {"plain", "slow", "failed", "user", "release"}),
    (TraceFilter(user="ann"), {"user"}),
    (TraceFilter(conversation="c-1"), {"user"}),
    (TraceFilter(environment="dev"), {"release"}),
    (TraceFilter(duration_ms_min=5_000), {"slow"}),
    (TraceFilter(cost_nusd_min=9_000), {"slow"}),
    (TraceFilter(start_ns_min=NOON_NS + DAY_NS), {"release"}),
    (TraceFilter(start_ns_max=NOON_NS), {"plain"}),
    (TraceFilter(text="parental"), {"guarded"}),
    (TraceFilter(text='"parental leave" question'), {"guarded"}),
    (TraceFilter(text='"leave parental"'), set()),
    (TraceFilter(text="QUESTION -plain OR"), set()),
    (TraceFilter(text="cafe"), {"user"}),
    (TraceFilter(text='unbalanced " quote'), set()),
    (TraceFilter(text="(*)"), set()),
]


@pytest.mark.parametrize(("wanted", "expected"), FILTERS)
def test_filters_find_what_they_say(store, ask, wanted, expected) -> None:
    traces = {
        "plain": ask("plain question"),
        "slow": ask("slow question", start_ns=NOON_NS + MS, end_ns=NOON_NS + 6_000 * MS),
        "failed": ask("failed question", start_ns=NOON_NS + 2 * MS, status="error"),
        "guarded": ask(
            "parental leave question", start_ns=NOON_NS + 3 * MS, attributes={Attr.GUARD: [{"check": "pii"}]}
        ),
        "user": ask(
            "question on the café",
            start_ns=NOON_NS + 4 * MS,
            attributes={Attr.USER: "ann", "session.id": "c-1"},
        ),
        "release": ask(
            "other app",
            start_ns=NOON_NS + DAY_NS,
            attributes={
                Attr.APP: "b",
                Attr.RELEASE: 4,
                Attr.ENVIRONMENT: "dev",
                Attr.ANSWERED_BY: "local/smollm2",
            },
        ),
    }
    root, call = traces["slow"]
    traces["slow"] = [root, replace(call, attributes={**call.attributes, Attr.COST_NUSD: 9_000})]
    store.ingest([span for spans in traces.values() for span in spans])

    found = {row.trace_id for row in store.list(wanted)}

    assert {name for name, spans in traces.items() if spans[0].trace_id in found} == expected


def test_roll_ups_count_by_bucket_app_and_release(store, ask, make_span) -> None:
    hour = 3_600_000_000_000
    for i in range(4):
        store.ingest(
            ask(
                start_ns=NOON_NS + i * MS,
                end_ns=NOON_NS + (i + 100 * (i + 1)) * MS,
                status="error" if i else "ok",
            )
        )
    store.ingest(ask(start_ns=NOON_NS + hour, attributes={Attr.RELEASE: 4, Attr.GROUNDED_SHARE: 0.5}))
    store.ingest([make_span(start_ns=NOON_NS + 2 * hour)])

    first, second, third = store.roll_ups(NOON_NS, NOON_NS + 3 * hour, bucket_s=3600)

    assert (first.bucket_start_ns, first.app, first.release) == (NOON_NS, "support-bot", 3)
    assert (first.requests, first.errors, first.cost_nusd, first.cost_unknown) == (4, 3, 6_000, 0)
    assert (first.input_tokens, first.output_tokens) == (480, 120)
    assert first.duration_ms_p50 == pytest.approx(250, rel=0.01)
    assert first.duration_ms_p95 == pytest.approx(385, rel=0.01)
    assert (second.release, second.grounded_share) == (4, 0.5)
    assert (third.app, third.cost_unknown, third.ttft_ms_p50) == (None, 1, None)
    assert [r.requests for r in store.roll_ups(NOON_NS, NOON_NS + 3 * hour, 86_400, by_release=False)] == [
        1,
        5,
    ]


def test_pruning_deletes_whole_days(store, ask) -> None:
    old, new = ask(attributes={Attr.APP: "old"}), ask(start_ns=NOON_NS + DAY_NS)
    store.ingest([*old, *new])
    store.list()

    assert store.prune(older_than_ns=NOON_NS + DAY_NS // 2) == ("2026-09-21",)

    assert [row.trace_id for row in store.list()] == [new[0].trace_id]
    assert store.apps() == ["support-bot"]
    with pytest.raises(NotFound):
        store.get(old[0].trace_id)
    assert not list(store._days.glob("2026-09-21*"))


def test_a_clock_far_ahead_makes_no_file_of_its_own(tmp_path, ask) -> None:
    store = TraceStore(tmp_path, clock=lambda: NOON_NS // 1_000)
    spans = ask(start_ns=NOON_NS + 400 * DAY_NS)

    store.ingest(spans)

    assert store.days() == ["2026-09-21"]
    assert len(store.get(spans[0].trace_id)) == 2
    store.close()


def test_a_lost_index_is_made_again(tmp_path, ask) -> None:
    first, second = ask(), ask()
    store = TraceStore(tmp_path)
    store.ingest(first)
    store.close()
    for path in tmp_path.glob("index.db*"):
        path.unlink()

    store = TraceStore(tmp_path)
    store.ingest(second)

    assert store.get(first[0].trace_id) == first
    assert len(store.list()) == 2
    store.close()


def test_another_process_reads_while_we_write(store, ask, tmp_path: Path) -> None:
    store.ingest(ask())
    script = (
        "import sys, pathlib; from mainstay.observe import TraceStore;"
        "s = TraceStore(pathlib.Path(sys.argv[1])); r, = s.list(); print(r.question, len(s.get(r.trace_id)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "observe")], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "How long is leave? 2"
    assert store.ingest(ask()) == 2


def test_lists_use_an_index(store, ask) -> None:
    store.ingest(ask())
    with store._readers.borrow(store._path("2026-09-21")) as connection:
        for condition in ("1", "app = 'x'"):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM traces WHERE {condition} AND (start_ns, trace_id) < (5, 'x')"
                " ORDER BY start_ns DESC, trace_id DESC LIMIT 5"
            ).fetchall()
            assert "USING INDEX" in str(plan)
            assert "TEMP B-TREE" not in str(plan)
