"""Spans of other dialects show the same facts, and sums count each model call once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.observe import Attr, normal_attributes, normalize_span
from mainstay.observe.derive import facts_of, trace_row

QUESTION, ANSWER = "How long is leave?", "Thirty days."

DIALECTS: dict[str, dict[str, Any]] = {
    "OpenTelemetry GenAI 1.37, messages as JSON text": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.conversation.id": "c-1",
        "gen_ai.input.messages": json.dumps(
            [
                {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
                {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
            ]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
        ),
    },
    "OpenTelemetry GenAI before 1.28 and Traceloop": {
        "llm.request.type": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.prompt_tokens": 12,
        "gen_ai.usage.completion_tokens": 3,
        "traceloop.association.properties.session_id": "c-1",
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": QUESTION,
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWER,
    },
    "OpenInference": {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "gpt-4o-mini",
        "llm.token_count.prompt": 12,
        "llm.token_count.completion": 3,
        "session.id": "c-1",
        "input.value": '{"messages": "as the SDK got them"}',
        "input.mime_type": "application/json",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": QUESTION,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": ANSWER,
    },
    "OpenInference, values alone": {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.model_name": "gpt-4o-mini",
        "llm.token_count.prompt": 12.0,
        "llm.token_count.completion": "3",
        "session.id": "c-1",
        "input.value": json.dumps({"messages": [{"role": "user", "content": QUESTION}]}),
        "output.value": json.dumps({"choices": [{"message": {"role": "assistant", "content": ANSWER}}]}),
    },
    "Langfuse": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "gpt-4o-mini",
        "gen_ai.system": "openai",
        "langfuse.session.id": "c-1",
        "langfuse.observation.input": json.dumps([{"role": "user", "content": QUESTION}]),
        "langfuse.observation.output": json.dumps({"role": "assistant", "content": ANSWER}),
        "langfuse.observation.usage_details": '{"input": 12, "output": 3, "input_cached": 5}',
    },
    "MLflow": {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.llm.model": "gpt-4o-mini",
        "gen_ai.system": "openai",
        "mlflow.trace.session": "c-1",
        "mlflow.spanInputs": json.dumps({"messages": [{"role": "user", "content": QUESTION}]}),
        "mlflow.spanOutputs": json.dumps({"choices": [{"message": {"content": ANSWER}}]}),
        "mlflow.chat.tokenUsage": '{"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}',
    },
}


@pytest.mark.parametrize("attributes", DIALECTS.values(), ids=DIALECTS.keys())
def test_a_dialect_is_understood(make_span, attributes) -> None:
    span = make_span(attributes=attributes, resource={"service.name": "shop"})

    row = trace_row(span.trace_id, [facts_of(span)[0]])

    assert (row.question, row.answer) == (QUESTION, ANSWER)
    assert (row.model, row.provider, row.conversation) == ("gpt-4o-mini", "openai", "c-1")
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (12, 3, None)
    assert row.app == "shop"
    assert normal_attributes(span)[Attr.OPERATION] == "chat"
    assert attributes.items() <= {**normalize_span(span).attributes, **attributes}.items()


def test_messages_sent_as_events_are_understood(make_span) -> None:
    events = (
        {"name": "gen_ai.system.message", "time_ns": 1, "attributes": {"content": "Be brief."}},
        {"name": "gen_ai.user.message", "time_ns": 2, "attributes": {"content": QUESTION}},
        {"name": "gen_ai.choice", "time_ns": 3, "attributes": {"message": json.dumps({"content": ANSWER})}},
    )

    facts, texts = facts_of(make_span(events=events))

    assert (facts.question, facts.answer) == (QUESTION, ANSWER)
    assert texts == ["Be brief.", QUESTION, ANSWER]


def test_the_first_token_event_gives_the_time_to_first_token(make_span) -> None:
    span = make_span(
        start_ns=1_000_000_000, events=({"name": "First Token Stream Event", "time_ns": 1_025_000_000},)
    )

    assert normal_attributes(span)[Attr.TTFT_MS] == 25.0


def test_costs_in_dollars_become_nano_dollars(make_span) -> None:
    assert normal_attributes(make_span(attributes={"llm.cost.total": 0.0021}))[Attr.COST_NUSD] == 2_100_000


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1, 2**70, 1.5, True, "many", [], {}, ""])
def test_a_count_that_is_none_is_unknown(make_span, bad) -> None:
    assert Attr.INPUT_TOKENS not in normal_attributes(make_span(attributes={Attr.INPUT_TOKENS: bad}))


ROOT, ONE, TWO, DEEP = "1" * 16, "2" * 16, "3" * 16, "4" * 16


def call(span_id: str, parent: str | None, **attributes: Any) -> dict[str, Any]:
    return {
        "span_id": span_id,
        "parent_id": parent,
        "attributes": {
            Attr.OPERATION: "chat",
            **{key.replace("__", "."): v for key, v in attributes.items()},
        },
    }


TOKENS, COST, RESPONSE = "gen_ai__usage__input_tokens", "mainstay__cost_nusd", "gen_ai__response__id"

SUMS = {
    "two calls add up": (
        [call(ROOT, None), call(ONE, ROOT, **{TOKENS: 5, COST: 2}), call(TWO, ROOT, **{TOKENS: 7, COST: 4})],
        12,
        6,
    ),
    "a parent that repeats its children adds nothing": (
        [
            call(ROOT, None, **{TOKENS: 12, COST: 6}),
            call(ONE, ROOT, **{TOKENS: 5, COST: 2}),
            call(TWO, ROOT, **{TOKENS: 7, COST: 4}),
        ],
        12,
        6,
    ),
    "and so at every level": (
        [
            call(ROOT, None, **{TOKENS: 9}),
            call(ONE, ROOT, **{TOKENS: 9}),
            call(DEEP, ONE, **{TOKENS: 9, COST: 1}),
        ],
        9,
        1,
    ),
    "what only the root knows counts": (
        [call(ROOT, None, **{COST: 6}), call(ONE, ROOT, **{TOKENS: 5})],
        5,
        6,
    ),
    "zero is a value": ([call(ROOT, None), call(ONE, ROOT, **{TOKENS: 0, COST: 0})], 0, 0),
    "nothing known is unknown": ([call(ROOT, None), call(ONE, ROOT)], None, None),
    "one call without a price makes the sum unknown": (
        [call(ROOT, None), call(ONE, ROOT, **{TOKENS: 5, COST: 2}), call(TWO, ROOT, **{TOKENS: 7})],
        12,
        None,
    ),
    "unless the root says what all cost": (
        [
            call(ROOT, None, **{COST: 9}),
            call(ONE, ROOT, **{TOKENS: 5, COST: 2}),
            call(TWO, ROOT, **{TOKENS: 7}),
        ],
        12,
        9,
    ),
    "one response recorded twice counts once": (
        [
            call(ROOT, None),
            call(ONE, ROOT, **{TOKENS: 5, COST: 2, RESPONSE: "r1"}),
            call(TWO, ROOT, **{TOKENS: 5, COST: 2, RESPONSE: "r1"}),
        ],
        5,
        2,
    ),
    "also when a parent names its child's response": (
        [
            call(ROOT, None, **{TOKENS: 5, RESPONSE: "r1"}),
            call(ONE, ROOT, **{TOKENS: 5, COST: 2, RESPONSE: "r1"}),
        ],
        5,
        2,
    ),
}


@pytest.mark.parametrize(("spans", "tokens", "cost"), SUMS.values(), ids=SUMS.keys())
def test_sums_count_each_model_call_once(make_span, spans, tokens, cost) -> None:
    facts = [facts_of(make_span(trace_id="a" * 32, **span))[0] for span in spans]

    for order in (facts, facts[::-1]):
        row = trace_row("a" * 32, order)
        assert (row.input_tokens, row.cost_nusd) == (tokens, cost)


def test_the_root_decides_the_status_and_a_recovered_retry_is_no_error(make_span) -> None:
    root, failed = make_span(span_id=ROOT), make_span(span_id=ONE, parent_id=ROOT, status="error")

    assert trace_row("t", [facts_of(failed)[0]]).status == "error"
    assert trace_row("t", [facts_of(root)[0], facts_of(failed)[0]]).status == "ok"


def test_a_request_from_a_traced_caller_has_its_server_span_as_root(make_span) -> None:
    served = make_span(span_id=ROOT, parent_id="f" * 16, kind="server")
    failed = make_span(span_id=ONE, parent_id=ROOT, status="error", end_ns=served.end_ns + 10**9)

    row = trace_row("t", [facts_of(failed)[0], facts_of(served)[0]])

    assert (row.status, row.duration_ms) == ("ok", 100.0)


def test_previews_are_short_and_on_one_line(make_span) -> None:
    span = make_span(attributes={Attr.INPUT_MESSAGES: [{"role": "user", "content": "a\n\n b " * 500}]})

    question = facts_of(span)[0].question

    assert len(question) == 200
    assert question.startswith("a b a b")
