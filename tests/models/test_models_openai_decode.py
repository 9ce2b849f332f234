"""Answers on the wire of OpenAI chat completions, whole and streamed, in every vendor's dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.models import ContextTooLong, ProviderBadRequest, ProviderError, ProviderQuotaExhausted, Usage
from mainstay.models.providers.openai_errors import decode_error
from mainstay.models.providers.openai_wire import (
    InBandError,
    MalformedEvent,
    decode_completion,
    decode_event,
    decode_events,
    decode_usage,
)
from mainstay.models.types import ToolCall, ToolCallDelta


def chunk(delta: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return json.dumps({"model": "gpt", "choices": [choice]}).encode()


def test_text_comes_with_its_model_and_the_bytes_it_came_in():
    data = chunk({"content": "Hé"})

    [delta] = decode_events(data)

    assert (delta.text, delta.model, delta.raw, delta.index) == ("Hé", "gpt", data, 0)


@pytest.mark.parametrize("delta", [{"role": "assistant", "content": ""}, {}, None, {"content": None}])
def test_an_event_that_says_nothing_is_no_delta(delta):
    assert decode_events(chunk(delta)) == ()


def test_several_choices_in_one_event_are_told_apart():
    event = {
        "choices": [
            {"index": 1, "delta": {"content": "b"}},
            {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }

    deltas = decode_events(json.dumps(event).encode())

    assert [(d.index, d.text, d.finish_reason) for d in deltas] == [
        (1, "b", None),
        (0, "a", "stop"),
        (0, "", None),
    ]
    assert deltas[2].usage == Usage(1, 2)
    assert [d.raw for d in deltas] == [None] * 3


def test_pieces_of_tool_calls_are_passed_on_one_by_one():
    first = {
        "tool_calls": [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "clock", "arguments": ""}},
            {"index": 1, "id": "c2", "function": {"name": "map", "arguments": '{"a"'}},
        ]
    }
    later = {"tool_calls": [{"index": 1, "function": {"arguments": ":1}"}}]}

    assert decode_events(chunk(first))[0].tool_calls == (
        ToolCallDelta(0, "c1", "clock", ""),
        ToolCallDelta(1, "c2", "map", '{"a"'),
    )
    assert decode_events(chunk(later))[0].tool_calls == (ToolCallDelta(1, None, None, ":1}"),)


def test_arguments_sent_as_an_object_become_text():
    delta = {"tool_calls": [{"id": "c1", "function": {"name": "map", "arguments": {"a": 1}}}]}

    assert decode_events(chunk(delta))[0].tool_calls == (ToolCallDelta(0, "c1", "map", '{"a":1}'),)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm", "content": None},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "content": ""},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ],
)
def test_visible_thinking_is_no_text(delta):
    [seen] = decode_events(chunk(delta))

    assert (seen.reasoning, seen.text) == ("hm", "")


def test_a_refusal_is_no_text():
    [delta] = decode_events(chunk({"refusal": "I cannot."}))

    assert (delta.refusal, delta.text) == ("I cannot.", "")


def test_log_probabilities_are_kept_as_they_came():
    item = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}

    [delta] = decode_events(chunk({"content": "Hi"}, logprobs={"content": [item], "refusal": None}))

    assert delta.logprobs == (item,)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("eos", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("new", "stop")],
)
def test_finish_reasons_have_one_name(reason, finish):
    assert decode_events(chunk({}, finish_reason=reason))[0].finish_reason == finish


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_that_is_a_failure_is_an_error(reason):
    with pytest.raises(InBandError):
        decode_events(chunk({"content": ""}, finish_reason=reason))


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"error": {"message": "slow", "code": 429}}, 429),
        ({"object": "error", "message": "broke", "code": 500}, 500),
        ({"error": {"message": "broke"}, "choices": "x"}, None),
        ({"error": "broke"}, None),
    ],
)
def test_an_error_inside_an_answer_is_told(event, status):
    with pytest.raises(InBandError) as caught:
        decode_events(json.dumps(event).encode())

    assert caught.value.status == status


@pytest.mark.parametrize(
    "data", [b"[1]", b'"x"', b"{", b'{"choices": [1]}', b'{"choices": {"a": 1}}', b"\xff"]
)
def test_what_is_no_event_is_malformed(data):
    with pytest.raises(MalformedEvent):
        decode_events(data)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 3},
            },
            Usage(100, 20, 60, 12, audio_input_tokens=10, audio_output_tokens=3),
        ),
        (  # DeepSeek
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64},
            Usage(100, 5, 64),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 64}, Usage(100, 5, 64)),  # Moonshot
        (  # OpenRouter
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 80},
            },
            Usage(100, 5, 10, cache_write_tokens=80),
        ),
        (  # xAI counts reasoning beside the completion
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 112,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(10, 102, reasoning_tokens=100),
        ),
        (  # Gemini's thoughts are only in the total
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 50},
            Usage(10, 40, reasoning_tokens=38),
        ),
        (  # a total that no class explains adds nothing
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 50,
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(10, 20, reasoning_tokens=5),
        ),
        (  # more cached than sent cannot be
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 99},
            },
            Usage(10, 2, 10),
        ),
        ({"prompt_tokens": 10}, None),
        ([], None),
    ],
)
def test_usage_has_disjoint_classes_that_sum(usage, expected):
    assert decode_usage(usage) == expected


def test_a_whole_answer_has_every_choice_in_order():
    body = json.dumps(
        {
            "model": "gpt",
            "choices": [
                {
                    "index": 1,
                    "message": {
                        "content": None,
                        "reasoning_content": "hm",
                        "tool_calls": [
                            {
                                "id": "c1",
                                "type": "function",
                                "function": {"name": "clock", "arguments": "{}"},
                            },
                            {"id": "c2", "type": "function", "function": {"name": "map", "arguments": "{}"}},
                        ],
                    },
                    "finish_reason": "tool_calls",
                },
                {"index": 0, "message": {"content": "Hi", "refusal": None}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        }
    ).encode()

    answer = decode_completion(body)

    assert [c.text for c in answer.choices] == ["Hi", ""]
    assert answer.choices[1].tool_calls == (ToolCall("c1", "clock", "{}"), ToolCall("c2", "map", "{}"))
    assert answer.choices[1].reasoning == "hm"
    assert (answer.usage, answer.model, answer.raw) == (Usage(3, 4), "gpt", body)


@pytest.mark.parametrize(
    "body", [{"choices": []}, {}, {"choices": [{"message": {"content": "Hi"}, "finish_reason": None}]}]
)
def test_a_whole_answer_without_an_end_is_malformed(body):
    with pytest.raises(MalformedEvent):
        decode_completion(json.dumps(body).encode())


def error_of(status: int, error: Any) -> ProviderError:
    return decode_error("vendor", status, json.dumps({"error": error}).encode(), {})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (400, {"code": "invalid_prompt", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (403, {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"], "flagged_input": "…"}}),
        (400, {"code": "content_policy_violation"}),
    ],
)
def test_a_refusal_by_moderation_keeps_its_code(status, error):
    refusal = error_of(status, error)

    assert type(refusal) is ProviderBadRequest
    assert (refusal.upstream_code, refusal.retryable) == ("content_filter", False)


def test_vllm_says_by_its_param_that_a_prompt_is_too_long():
    assert (
        type(error_of(400, {"type": "BadRequestError", "param": "input_tokens", "code": 400}))
        is ContextTooLong
    )


def test_quota_is_told_by_code_under_any_status():
    assert type(error_of(403, {"code": "insufficient_quota"})) is ProviderQuotaExhausted


@pytest.mark.parametrize("status", [409, 498, 500, 503, 529])
def test_passing_troubles_may_be_tried_again(status):
    assert error_of(status, {"message": "busy"}).retryable


def test_googles_list_of_errors_is_read():
    body = json.dumps([{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}]).encode()

    assert "quota" in str(decode_error("gemini", 429, body, {}))


@pytest.mark.parametrize("total", [30, 31, 50, None, "30"])
def test_three_counts_alone_are_read_as_beside_others(total):
    counts = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": total}

    assert decode_usage(counts) == decode_usage({**counts, "prompt_tokens_details": None})


@pytest.mark.parametrize("counts", [(-5, 10), (5, -10), (True, 10), ("5", 10)])
def test_counts_that_cannot_be_are_no_usage(counts):
    assert decode_usage({"prompt_tokens": counts[0], "completion_tokens": counts[1]}) is None


def test_cached_and_reasoning_tokens_below_zero_count_as_none():
    details = {"prompt_tokens_details": {"cached_tokens": -9}, "prompt_cache_hit_tokens": -1}
    details |= {"completion_tokens_details": {"reasoning_tokens": -9}}
    assert decode_usage({"prompt_tokens": 5, "completion_tokens": 6, **details}) == Usage(5, 6)


def test_a_delta_that_is_no_object_is_a_malformed_event():
    with pytest.raises(MalformedEvent, match="delta"):
        decode_event('{"choices": [{"delta": "hello"}]}')
