"""Rendering responses, whole and as events."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from serving_responses_harness import IDS, STARTED, broken, events_of, final_of, tool_call, words

from mainstay.models.types import Delta, Thinking, ToolCallDelta, Usage
from mainstay.serving.errors import reply_to
from mainstay.serving.surfaces.responses import ResponsesSurface
from mainstay.serving.types import ChatRequest

SURFACE = ResponsesSurface()
MESSAGE = f"msg_{IDS.trace_id}a111222233334444_0"


def request(**body: Any) -> ChatRequest:
    return SURFACE.read({"model": "m", "input": "Hi", **body})


def whole(deltas: list[Delta], **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(SURFACE.whole(final_of(deltas), request(**body), IDS))
    return answer


def streamed(deltas: list[Delta], **body: Any) -> list[dict[str, Any]]:
    renderer = SURFACE.stream(request(**body), IDS)
    frames = renderer.start(STARTED) + b"".join(renderer.delta(delta) for delta in deltas)
    stream = frames + renderer.ping + renderer.end(final_of(deltas))
    assert stream.endswith(b"data: [DONE]\n\n")
    return events_of(stream)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_whole_response_has_all_that_the_api_documents():
    answer = whole(words("Hel", "lo"), instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=9)

    TypeAdapter(Response).validate_python(answer)
    assert answer["id"] == f"resp_{IDS.trace_id}a111222233334444"
    assert (answer["object"], answer["status"], answer["model"]) == ("response", "completed", "m")
    assert (answer["created_at"], answer["completed_at"]) == (1_790_000_000, 1_790_000_002)
    assert answer["output"] == [
        {
            "id": MESSAGE,
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}],
        }
    ]
    assert answer["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 19,
    }
    assert (answer["instructions"], answer["metadata"]) == ("Be brief.", {"a": "b"})
    assert (answer["max_output_tokens"], answer["store"]) == (9, True)
    assert answer["mainstay"]["cost_nusd"] == 1500


def test_text_streams_in_the_documented_order():
    events = streamed(words("Hel", "lo"))

    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events if "delta" in event] == ["Hel", "lo"]
    assert events[6]["text"] == "Hello"
    assert events[0]["response"]["status"] == "in_progress"
    assert events[-1]["response"] == whole(words("Hel", "lo"), stream=True)


def test_parallel_calls_stream_their_arguments_mixed():
    deltas = [
        *tool_call("weather", '{"a"', call_id="c1"),
        *tool_call("time", "{", call_id="c2", index=1),
        Delta(tool_calls=(ToolCallDelta(0, arguments=":1}"), ToolCallDelta(1, arguments="}"))),
        Delta(finish_reason="tool_calls"),
    ]

    events = streamed(deltas)

    assert types(events)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [(i["call_id"], i["name"], i["arguments"]) for i in events[-1]["response"]["output"]] == [
        ("c1", "weather", '{"a":1}'),
        ("c2", "time", "{}"),
    ]
    assert events[-1]["response"] == whole(deltas)


THOUGHT = [
    Delta(reasoning="Hm, "),
    Delta(reasoning="two."),
    Delta(thinking=Thinking("Hm, two.", signature="sig")),
    *words("2"),
]


def test_reasoning_streams_as_text_and_is_done_before_the_answer_begins():
    events = streamed(THOUGHT)

    assert types(events)[2:10] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
    ]
    reasoning = events[-1]["response"]["output"][0]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm, two."}]
    assert "encrypted_content" not in reasoning
    assert events[-1]["response"] == whole(THOUGHT)


def test_reasoning_streams_as_a_summary_when_one_was_asked_for():
    asked = {"reasoning": {"effort": "low", "summary": "auto"}}

    events = streamed(THOUGHT, **asked)

    assert types(events)[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm, two."}]
    assert events[-1]["response"] == whole(THOUGHT, **asked)


def test_hidden_reasoning_that_was_included_is_read_back_as_it_was():
    include = ["reasoning.encrypted_content"]
    deltas = [Delta(thinking=Thinking(encrypted="opaque", id="rs_x")), *THOUGHT]

    events = streamed(deltas, include=include)
    output = events[-1]["response"]["output"]
    back = SURFACE.read({"model": "m", "input": [{"role": "user", "content": "1+1"}, *output]})

    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == output == whole(deltas, include=include)["output"]
    assert back.messages[1].thinking == (
        Thinking(encrypted="opaque", id="rs_x"),
        Thinking("Hm, two.", signature="sig"),
    )
    assert back.messages[1].content == "2"


def test_every_event_is_as_the_sdk_declares_it():
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    deltas = [*THOUGHT, Delta(refusal="no"), *tool_call("f", "{}"), Delta(finish_reason="stop")]

    for asked in ({}, {"reasoning": {"summary": "auto"}}):
        for event in streamed(deltas, **asked):
            declared.validate_python(event)


def test_a_refusal_is_a_part_of_its_own():
    deltas = [Delta(refusal="I "), Delta(refusal="cannot."), Delta(finish_reason="stop")]

    events = streamed(deltas)

    assert types(events)[3:7] == ["content_part.added", "refusal.delta", "refusal.delta", "refusal.done"]
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    assert events[-1]["response"] == whole(deltas)


def test_log_probabilities_go_with_their_words():
    chat = {
        "token": "Hi",
        "logprob": -0.5,
        "bytes": None,
        "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}],
    }
    deltas = [Delta(text="Hi", logprobs=(chat,)), Delta(finish_reason="stop")]

    events = streamed(deltas, include=["message.output_text.logprobs"])

    expected = [{**chat, "bytes": []}]
    delta, done = events[4], events[5]
    assert delta["logprobs"] == done["logprobs"] == expected
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_short_is_incomplete(finish: str, reason: str):
    events = streamed(words("Hel", finish=finish))

    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": reason}
    assert response["output"][-1]["status"] == "incomplete"
    assert response == whole(words("Hel", finish=finish))


def test_an_empty_answer_is_an_empty_message():
    events = streamed([Delta(finish_reason="stop")])

    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_what_no_delta_brought_is_sent_at_the_end():
    renderer = SURFACE.stream(request(), IDS)
    final = final_of([*words("Hello"), *tool_call("f", "{}")])

    events = events_of(renderer.start(STARTED) + renderer.delta(Delta(text="Hel")) + renderer.end(final))

    assert [event["delta"] for event in events if "delta" in event] == ["Hel", "lo", "{}"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_failed_stream_ends_with_failed_and_never_with_completed(begun: bool):
    renderer = SURFACE.stream(request(), IDS)
    frames = renderer.start(STARTED) + renderer.delta(Delta(text="Hel")) if begun else b""

    stream = frames + renderer.error(reply_to(broken(), IDS.trace_id))

    events = events_of(stream)
    assert types(events)[:2] == ["created", "in_progress"]
    assert types(events)[-2:] == ["error", "failed"]
    assert b"[DONE]" not in stream
    assert events[-2]["code"] == events[-2]["error"]["code"] == "provider_stream_broken"
    response = events[-1]["response"]
    assert (response["status"], response["store"]) == ("failed", False)
    assert response["error"]["code"] == "provider_stream_broken"
    assert [item["status"] for item in response["output"]] == ["incomplete"] * begun


def test_two_requests_of_one_trace_have_different_ids():
    other = type(IDS)("req_0193b2d0c0de7000a111222233335555", IDS.trace_id, IDS.created_s)
    final = final_of(words("a"))

    ids = {orjson.loads(SURFACE.whole(final, request(), i))["id"] for i in (IDS, other)}

    assert len(ids) == 2


def canonical(output: list[dict[str, Any]]) -> dict[str, Any]:
    """What an output says, however it was cut into items."""
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return {
        "text": "".join(part.get("text", "") for part in parts),
        "refusal": "".join(part.get("refusal", "") for part in parts),
        "calls": sorted(
            (i["call_id"], i["name"], i["arguments"]) for i in output if i["type"] == "function_call"
        ),
        "reasoning": "".join(
            part["text"] for i in output if i["type"] == "reasoning" for part in i.get("content", [])
        ),
        "secrets": [i["encrypted_content"] for i in output if i.get("encrypted_content")],
    }


def accumulated(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as a client builds it from deltas alone; checks every `done` against it."""
    output: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(output)
            output.append({"content": [], **event["item"]})
        elif "output_index" in event:
            _grow(output[event["output_index"]], kind, event)
    assert all(item["status"] != "in_progress" for item in output)
    return output


def _grow(item: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
    assert item["status"] == "in_progress"
    if kind == "output_item.done":
        done = event["item"]
        assert (done["id"], done.get("arguments")) == (item["id"], item.get("arguments"))
        item |= {name: done[name] for name in ("status", "encrypted_content") if name in done}
        return
    assert event["item_id"] == item["id"]
    if kind == "content_part.added":
        assert event["content_index"] == len(item["content"])
        item["content"].append({**event["part"]})
    elif kind == "content_part.done":
        assert event["part"] == item["content"][event["content_index"]]
    elif kind == "function_call_arguments.delta":
        item["arguments"] += event["delta"]
    elif kind.endswith(".delta"):
        part = item["content"][event["content_index"]]
        part["refusal" if "refusal" in part else "text"] += event["delta"]


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    """Any mix of what a provider may stream, tool calls begun with their id and name."""
    deltas: list[Delta] = []
    calls = 0
    unfinished = ""
    for kind in draw(
        st.lists(st.sampled_from(["text", "reasoning", "thinking", "refusal", "call", "piece"]))
    ):
        words_ = draw(st.text(min_size=1, max_size=5))
        if kind == "thinking":
            deltas.append(Delta(thinking=Thinking(unfinished, encrypted=words_)))
        elif kind == "call":
            piece = ToolCallDelta(calls, f"c{calls}", f"f{calls}", words_)
            deltas.append(Delta(tool_calls=(piece,)))
            calls += 1
        elif kind == "piece" and calls:
            deltas.append(
                Delta(tool_calls=(ToolCallDelta(draw(st.integers(0, calls - 1)), arguments=words_),))
            )
        elif kind in ("text", "reasoning", "refusal"):
            deltas.append(Delta(**{kind: words_}))  # type: ignore[arg-type]
        if kind == "reasoning":
            unfinished += words_
        elif kind != "piece":  # of a call that began before: the block of thinking goes on
            unfinished = ""
    deltas.append(Delta(finish_reason=draw(st.sampled_from(["stop", "length"])), usage=Usage(3, 4)))
    return deltas


@given(answers())
def test_any_answer_streamed_and_accumulated_is_the_whole_answer(deltas: list[Delta]):
    include = {"include": ["reasoning.encrypted_content"]}

    events = streamed(deltas, **include)
    last = events[-1]["response"]
    one = whole(deltas, **include)

    assert canonical(accumulated(events)) == canonical(last["output"]) == canonical(one["output"])
    assert {**last, "output": []} == {**one, "output": []}
