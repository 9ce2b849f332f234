"""Building traces, ordering them as waterfalls, and leaving content out."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import fields
from itertools import count

import orjson
import pytest

from mainstay.core.errors import NotFound
from mainstay.observe import Attr, Span, TraceBuilder, redact_content, waterfall
from mainstay.observe.codec import decode_spans, encode_spans


def test_steps_become_spans_below_the_root() -> None:
    trace = TraceBuilder("chat support-bot", clock_ns=count(1_000, 10).__next__)
    trace.set(Attr.APP, "support-bot")

    with trace.step("retrieve") as step:
        step.set("mainstay.retrieval.top_k", 5)
        with step.step("embed", kind="client") as inner:
            inner.event("loaded", size=3)
    root, retrieve, embed = trace.finish()

    assert root.parent_id is None
    assert root.attributes == {Attr.APP: "support-bot"}
    assert (retrieve.parent_id, embed.parent_id) == (root.span_id, retrieve.span_id)
    assert root.start_ns < retrieve.start_ns < embed.start_ns < embed.end_ns < retrieve.end_ns < root.end_ns
    assert embed.kind == "client"
    assert embed.events[0]["attributes"] == {"size": 3}


def test_an_exception_fails_its_step_and_goes_on() -> None:
    trace = TraceBuilder("chat")

    with pytest.raises(NotFound), trace.step("resolve"):
        raise NotFound("No such app.")
    root, step = trace.finish()

    assert (root.status, step.status) == ("unset", "error")
    assert step.attributes[Attr.ERROR_TYPE] == "not_found"
    assert step.status_message == "No such app."


async def test_a_cancelled_step_says_so() -> None:
    trace = TraceBuilder("chat")

    async def call() -> None:
        with trace.step("call"):
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert trace.finish()[1].attributes[Attr.ERROR_TYPE] == "cancelled"


def test_finishing_closes_open_steps_and_can_fail_the_root() -> None:
    trace = TraceBuilder("chat", parent_id="00f067aa0ba902b7")
    trace.open("call", "client", trace.root.span_id)

    root, call = trace.finish(NotFound("gone"))

    assert root.status == "error"
    assert root.parent_id == "00f067aa0ba902b7"
    assert call.end_ns <= root.end_ns


def test_spans_of_a_trace_have_ids_of_their_own_and_no_other_trace_has_them() -> None:
    traces = [TraceBuilder("chat") for _ in range(50)]
    for trace in traces:
        for name in "abc":
            trace.step(name)
    ids = [span.span_id for trace in traces for span in trace.finish()]

    assert len(set(ids)) == 200
    assert all(re.fullmatch("[0-9a-f]{16}", each) and int(each, 16) for each in ids)


def test_what_is_unknown_is_left_out_and_a_step_of_which_nothing_came() -> None:
    trace = TraceBuilder("chat")
    trace.set(Attr.APP, "bot")
    trace.set(Attr.APP, None)
    with trace.step("guard") as step:
        step.leave_out()
    with trace.step("call") as step:
        step.set(Attr.COST_NUSD, 0)
        step.set(Attr.COST_NUSD, None)

    root, call = trace.finish()

    assert root.attributes == {Attr.APP: "bot"}
    assert (call.name, call.attributes) == ("call", {Attr.COST_NUSD: 0})


def test_times_are_those_of_the_wall_clock() -> None:
    before_ns = time.time_ns()
    trace = TraceBuilder("chat")
    trace.event("heard")
    (root,) = trace.finish()
    after_ns = time.time_ns()

    a_second = 10**9  # the wall clock may be set while we look
    times = [before_ns - a_second, root.start_ns, root.events[0]["time_ns"], root.end_ns, after_ns + a_second]
    assert times == sorted(times)


def test_a_waterfall_shows_children_below_parents_by_start_and_orphans_too(make_span) -> None:
    root = make_span(start_ns=1_000_000_000, end_ns=1_100_000_000)
    late = make_span(parent_id=root.span_id, start_ns=1_060_000_000, end_ns=1_100_000_000, name="late")
    early = make_span(parent_id=root.span_id, start_ns=1_010_000_000, end_ns=1_050_000_000, name="early")
    orphan = make_span(parent_id="aaaaaaaaaaaaaaaa", start_ns=1_020_000_000, end_ns=1_030_000_000)

    rows = waterfall([late, orphan, early, root])

    assert [row.span for row in rows] == [root, early, late, orphan]
    assert [row.depth for row in rows] == [0, 1, 1, 0]
    assert [row.orphan for row in rows] == [False, False, False, True]
    assert (rows[1].offset_ms, rows[1].duration_ms, rows[1].share) == (10.0, 40.0, 0.4)
    assert rows[1].offset_share == 0.1


def test_spans_that_are_each_others_parents_are_still_shown(make_span) -> None:
    one = make_span(span_id="1" * 16, parent_id="2" * 16)
    two = make_span(span_id="2" * 16, parent_id="1" * 16)
    itself = make_span(span_id="3" * 16, parent_id="3" * 16)

    assert len(waterfall([one, two, itself])) == 3
    assert waterfall([]) == []


def test_a_very_deep_trace_is_no_problem(make_span) -> None:
    spans = [make_span(span_id=f"{i + 1:016x}", parent_id=f"{i:016x}" if i else None) for i in range(5_000)]

    assert waterfall(spans)[-1].depth == 4_999


def test_redaction_drops_texts_and_keeps_the_rest(make_span) -> None:
    canary = "my account number is 4711"
    span = make_span(
        attributes={
            Attr.INPUT_MESSAGES: [{"role": "user", "content": canary}],
            Attr.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [{"type": "text", "content": canary}]}],
            Attr.PASSAGES: [{"number": 1, "uri": "leave.md", "score": 0.7, "text": canary}],
            Attr.CITATIONS: [{"number": 1, "start": 3, "end": 9, "quote": canary}],
            Attr.GUARD: [{"check": "pii", "kind": "iban", "excerpt": canary}],
            "gen_ai.prompt.0.content": canary,
            "gen_ai.prompt.0.role": "user",
            "llm.input_messages.0.message.content": canary,
            "input.value": canary,
            "traceloop.entity.input": canary,
            "unknown.dialect": canary * 20,
            "unknown.json": f'{{"q": "{canary}"}}',
            Attr.INPUT_TOKENS: 12,
            Attr.APP: "support-bot",
        },
        events=(
            {"name": "gen_ai.user.message", "time_ns": 5, "attributes": {"content": canary, "id": "m1"}},
        ),
    )

    redacted = redact_content(span)

    assert canary.encode() not in encode_spans([redacted])
    assert redacted.attributes[Attr.INPUT_MESSAGES] == [{"role": "user"}]
    assert redacted.attributes[Attr.PASSAGES] == [{"number": 1, "uri": "leave.md", "score": 0.7}]
    assert redacted.attributes[Attr.CITATIONS] == [{"number": 1, "start": 3, "end": 9}]
    assert redacted.attributes[Attr.GUARD] == [{"check": "pii", "kind": "iban"}]
    assert redacted.attributes["gen_ai.prompt.0.role"] == "user"
    assert redacted.attributes[Attr.INPUT_TOKENS] == 12
    assert redacted.events[0]["attributes"] == {"id": "m1"}


def test_every_field_of_a_span_is_written(make_span) -> None:
    span = make_span(
        events=({"name": "e"},), links=({"trace_id": "t"},), status="error", status_message="bad"
    )

    (written,) = orjson.loads(encode_spans([span]))

    assert written == orjson.loads(orjson.dumps(span))
    assert list(written) == [field.name for field in fields(Span)]


def test_any_value_can_be_written_and_plain_ones_come_back_the_same(make_span) -> None:
    plain = make_span(attributes={"a": [1, 2.0, None, True], "b": {"c": "ü"}, "d": 0.5}, resource={"x": "y"})
    keyed = make_span(attributes={"by_number": {1: "one"}})
    odd = make_span(attributes={"bytes": b"\x00\xff", "surrogate": "\ud800", "huge": 10**30, "set": {1}})

    again, strange = decode_spans(encode_spans([plain, odd]))
    (numbered,) = decode_spans(encode_spans([keyed]))

    assert again == plain
    assert numbered.attributes == {"by_number": {"1": "one"}}
    assert strange.attributes == {"bytes": "AP8=", "surrogate": "?", "huge": str(10**30), "set": [1]}
