"""Anthropic's messages out: whole bodies and streams, read back by Anthropic's own client."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from pydantic import BaseModel
from surface_kit import IDS, TRACE, USAGE, answers, anthropic_client, events, final, started, streamed

from mainstay.core.errors import Unauthenticated
from mainstay.models.types import Delta, Thinking, ToolCallDelta, Usage
from mainstay.serving.errors import BadField, InsufficientQuota, ModelNotFound, UpstreamFailed, reply_to
from mainstay.serving.surfaces.messages import MessagesSurface
from mainstay.serving.types import ChatRequest

SURFACE = MessagesSurface()
ASKED: Any = {"model": "acme/large", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
TEXT = [Delta(text="Hel", model="large-1"), Delta(text="lo"), Delta(finish_reason="stop"), Delta(usage=USAGE)]
USAGE_BODY = {
    "input_tokens": 18,
    "cache_creation_input_tokens": 4,
    "cache_read_input_tokens": 8,
    "output_tokens": 12,
    "output_tokens_details": {"thinking_tokens": 3},
}


def request(**fields: Any) -> ChatRequest:
    return SURFACE.read({**ASKED, **fields})


def rendered(deltas: list[Delta], **fields: Any) -> bytes:
    return streamed(SURFACE.stream(request(**fields), IDS), deltas, final(deltas))


def whole(deltas: list[Delta]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(SURFACE.whole(final(deltas), request(), IDS))
    return body


def accumulated(stream: bytes) -> dict[str, Any]:
    """What the SDK's accumulator makes of a stream."""
    with anthropic_client(stream).messages.stream(**ASKED) as got:
        return got.get_final_message().to_dict()


def kinds(stream: bytes) -> list[str]:
    """The events of a stream by type, and blocks by what they are."""
    said = []
    for event in events(stream):
        inner = event.get("content_block") or event.get("delta") or {}
        said.append(event["type"] + (f":{inner['type']}" if "type" in inner else ""))
    return said


def test_a_whole_answer_has_anthropics_form_and_classes_of_usage() -> None:
    body = whole(TEXT)
    assert body.pop("mainstay")["trace_id"] == TRACE
    assert body == {
        "id": f"msg_{TRACE}",
        "type": "message",
        "role": "assistant",
        "model": "large-1",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            **USAGE_BODY,
            "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 1},
        },
    }


def test_a_stream_has_anthropics_events_in_anthropics_order() -> None:
    stream = rendered(TEXT)
    assert stream.startswith(b'event: message_start\ndata: {"type":"message_start",')
    assert kinds(stream) == [
        "message_start",
        "ping",
        "content_block_start:text",
        "content_block_delta:text_delta",
        "content_block_delta:text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    *_, last, _ = events(stream)
    assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last["usage"] == USAGE_BODY
    assert last["mainstay"]["cost_nusd"] == 1500


def test_the_names_of_events_are_their_types() -> None:
    for frame in rendered(TEXT).decode().strip().split("\n\n"):
        name, data = frame.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


TOOLS = [
    Delta(text="Let me see."),
    Delta(tool_calls=(ToolCallDelta(0, "call_a", "weather"),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='{"city":'),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='"Bern"}'),)),
    Delta(tool_calls=(ToolCallDelta(1, "call_b", "clock", "{}"),)),
    Delta(finish_reason="stop"),
]


def test_calls_of_tools_stop_for_tool_use_whatever_the_provider_called_it() -> None:
    stream = rendered(TOOLS)
    assert kinds(stream)[5:] == [
        "content_block_start:tool_use",
        "content_block_delta:input_json_delta",
        "content_block_delta:input_json_delta",
        "content_block_stop",
        "content_block_start:tool_use",
        "content_block_delta:input_json_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = accumulated(stream)
    assert message["stop_reason"] == whole(TOOLS)["stop_reason"] == "tool_use"
    assert [block.get("input") for block in message["content"]] == [None, {"city": "Bern"}, {}]


def test_arguments_are_relayed_as_they_come() -> None:
    renderer = SURFACE.stream(request(), IDS)
    renderer.start(started())
    for delta in TOOLS[:2]:
        renderer.delta(delta)
    assert b'"partial_json":"{\\"city\\":"' in renderer.delta(TOOLS[2])


def test_interleaved_calls_are_told_one_after_the_other() -> None:
    deltas = [
        Delta(tool_calls=(ToolCallDelta(0, "a", "f"), ToolCallDelta(1, "b", "g"))),
        Delta(tool_calls=(ToolCallDelta(1, arguments='{"x":'), ToolCallDelta(0, arguments='{"y":2'))),
        Delta(tool_calls=(ToolCallDelta(1, arguments="1}"), ToolCallDelta(0, arguments="}"))),
        Delta(tool_calls=(ToolCallDelta(0, arguments="\n"),)),
        Delta(text="Done."),
        Delta(finish_reason="tool_calls"),
    ]
    stream = rendered(deltas)
    assert [kind for kind in kinds(stream) if "block_st" in kind] == [
        "content_block_start:tool_use",
        "content_block_stop",
        "content_block_start:tool_use",
        "content_block_stop",
        "content_block_start:text",
        "content_block_stop",
    ]
    assert [block.get("input") for block in accumulated(stream)["content"]] == [{"y": 2}, {"x": 1}, None]


def test_a_call_that_was_cut_off_is_not_passed_off_as_complete() -> None:
    deltas = [Delta(tool_calls=(ToolCallDelta(0, "a", "f", '{"x":'),)), Delta(finish_reason="length")]
    body = whole(deltas)
    assert body["stop_reason"] == accumulated(rendered(deltas))["stop_reason"] == "max_tokens"
    assert body["content"][0]["input"] == {"INVALID_JSON": '{"x":'}


def test_thinking_is_a_block_of_its_own_with_its_signature() -> None:
    deltas = [
        Delta(reasoning="Hm. "),
        Delta(reasoning="Yes."),
        Delta(thinking=Thinking("Hm. Yes.", "sig")),
        Delta(thinking=Thinking(encrypted="xyz")),
        Delta(text="42"),
        Delta(finish_reason="stop"),
    ]
    expected = [
        {"type": "thinking", "thinking": "Hm. Yes.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "42"},
    ]
    assert whole(deltas)["content"] == expected
    assert accumulated(rendered(deltas))["content"] == expected
    again = SURFACE.read({**ASKED, "messages": [{"role": "assistant", "content": expected}]}).messages[0]
    assert again.thinking == (Thinking("Hm. Yes.", "sig"), Thinking(encrypted="xyz"))


def test_a_finished_block_of_thinking_that_was_never_shown_is_told_whole() -> None:
    deltas = [Delta(thinking=Thinking("Hm.", "sig")), Delta(text="42"), Delta(finish_reason="stop")]
    assert accumulated(rendered(deltas))["content"][0]["thinking"] == "Hm."


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        (Delta(finish_reason="length"), "max_tokens", None),
        (Delta(finish_reason="content_filter"), "refusal", None),
        (Delta(finish_reason="stop", stop_sequence="END"), "stop_sequence", "END"),
        (Delta(finish_reason="stop", refusal="I will not."), "refusal", None),
    ],
)
def test_the_reason_to_stop_is_said_in_anthropics_words(
    last: Delta, reason: str, sequence: str | None
) -> None:
    deltas = [Delta(text="a"), last]
    for message in (whole(deltas), accumulated(rendered(deltas))):
        assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_a_structured_answer_is_parsed_by_the_sdk() -> None:
    class City(BaseModel):
        name: str

    deltas = [Delta(text='{"name":'), Delta(text='"Bern"}'), Delta(finish_reason="stop")]
    with anthropic_client(rendered(deltas)).messages.stream(**ASKED, output_format=City) as got:
        assert got.get_final_message().parsed_output == City(name="Bern")


def test_an_answer_without_words_is_an_empty_message() -> None:
    deltas = [Delta(finish_reason="stop")]
    assert whole(deltas)["content"] == accumulated(rendered(deltas))["content"] == []


def test_the_sdk_reads_a_whole_answer() -> None:
    body = SURFACE.whole(final(TEXT), request(), IDS)
    message = anthropic_client(body, media_type="application/json").messages.create(**ASKED)
    assert message.usage.cache_creation is not None
    assert message.usage.cache_creation.ephemeral_1h_input_tokens == 1


RAW = [
    b'{"type":"message_start","message":{"id":"msg_up","type":"message","role":"assistant","model":"large-1",'
    b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"output_tokens":1}}}',
    b'{"type": "content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    b'{"index":0,"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"},"vendor":7}',
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":4}}',
    b'{"type":"message_stop"}',
]


def raw_stream() -> list[Delta]:
    start, begin, text, stop, last, done = RAW
    return [
        Delta(raw=start),
        Delta(raw=begin),
        Delta(text="Hi", raw=text),
        Delta(raw=stop),
        Delta(finish_reason="stop", usage=Usage(5, 4), raw=last),
        Delta(raw=done),
    ]


def test_a_providers_own_events_are_relayed_but_the_last_wait_for_mainstay() -> None:
    renderer = SURFACE.stream(request(), IDS)
    renderer.start(started())
    sent = [renderer.delta(delta) for delta in raw_stream()]
    assert sent[2] == b"event: content_block_delta\ndata: " + RAW[2] + b"\n\n"
    assert sent[4:] == [b"", b""]
    stream = b"".join(sent) + renderer.end(final(raw_stream()))
    assert events(stream)[-2]["mainstay"]["trace_id"] == TRACE
    assert kinds(stream)[-1] == "message_stop"
    message = accumulated(stream)
    assert (message["id"], message["content"][0]["text"], message["usage"]["output_tokens"]) == (
        "msg_up",
        "Hi",
        4,
    )


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_relayed_answer_that_has_to_be_rendered_from_somewhere_on_stays_whole(cut: int) -> None:
    rest = [replace(delta, raw=None) for delta in raw_stream()[cut:]]
    message = accumulated(rendered([*raw_stream()[:cut], *rest]))
    assert [block["text"] for block in message["content"]] == ["Hi"]
    assert message["stop_reason"] == "end_turn"


def test_a_providers_own_body_is_relayed_with_one_more_member() -> None:
    body = SURFACE.whole(final(TEXT, raw=b'{"id": "msg_up"}'), request(), IDS)
    assert body.startswith(b'{"id": "msg_up","mainstay":')


def test_an_apps_answer_is_called_by_the_apps_name() -> None:
    asked = request(model="support-bot")
    assert json.loads(SURFACE.whole(final(TEXT, app="support-bot"), asked, IDS))["model"] == "support-bot"
    renderer = SURFACE.stream(asked, IDS)
    renderer.start(started("support-bot@3"))
    assert events(renderer.delta(TEXT[0]))[0]["message"]["model"] == "support-bot"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadField("max_tokens", "is required."), 400, "invalid_request_error"),
        (Unauthenticated("No key."), 401, "authentication_error"),
        (ModelNotFound("x", ["y"]), 404, "not_found_error"),
        (InsufficientQuota("Spent.", retry_after_s=None), 429, "rate_limit_error"),
        (UpstreamFailed("No."), 502, "api_error"),
    ],
)
def test_errors_have_anthropics_form_and_type(error: Exception, status: int, kind: str) -> None:
    reply = reply_to(error, TRACE)
    body = SURFACE.error_body(reply)
    assert (reply.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == TRACE
    client = anthropic_client(json.dumps(body).encode(), status=status, media_type="application/json")
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ASKED)
    assert caught.value.status_code == status
    assert body["error"]["message"] in str(caught.value)


def test_a_failure_midway_raises_in_the_sdk_and_nothing_looks_complete() -> None:
    renderer = SURFACE.stream(request(), IDS)
    renderer.start(started())
    stream = b"".join(renderer.delta(delta) for delta in raw_stream())
    stream += renderer.error(reply_to(UpstreamFailed("The provider hung up.")))
    assert b"message_stop" not in stream
    assert b"end_turn" not in stream
    with pytest.raises(anthropic.APIStatusError, match="hung up"):
        accumulated(stream)


def test_a_ping_into_the_silence_before_the_answer_does_no_harm() -> None:
    assert accumulated(SURFACE.stream(request(), IDS).ping + rendered(TEXT)) == accumulated(rendered(TEXT))


@settings(max_examples=60, deadline=None)
@given(answers())
def test_a_stream_read_by_the_sdk_is_the_whole_answer(deltas: list[Delta]) -> None:
    stream = rendered(deltas)
    got, expected = accumulated(stream), whole(deltas)
    for kind, member in (("text", "text"), ("thinking", "thinking"), ("redacted_thinking", "data")):
        assert joined(got, kind, member) == joined(expected, kind, member)
    assert signatures(got) == signatures(expected)
    assert calls(got) == calls(expected)
    for name in ("id", "model", "stop_reason", "stop_sequence"):
        assert got[name] == expected[name]
    assert {name: got["usage"][name] for name in USAGE_BODY} == USAGE_BODY
    no_block_is_inside_another(kinds(stream))


def joined(message: dict[str, Any], kind: str, member: str) -> str:
    return "".join(block[member] for block in message["content"] if block["type"] == kind)


def signatures(message: dict[str, Any]) -> list[str]:
    return [block["signature"] for block in message["content"] if block.get("signature")]


def calls(message: dict[str, Any]) -> list[Any]:
    return [(b["id"], b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]


def no_block_is_inside_another(said: list[str]) -> None:
    is_open = False
    for kind in said:
        if kind.startswith("content_block_start"):
            assert not is_open
            is_open = True
        elif kind.startswith("content_block_delta"):
            assert is_open
        elif kind == "content_block_stop":
            is_open = False
    assert not is_open
