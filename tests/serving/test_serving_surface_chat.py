"""Chat completions out: whole bodies and streams, read back by OpenAI's own client."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from pydantic import BaseModel
from surface_kit import IDS, TRACE, USAGE, answers, events, final, openai_client, started, streamed

from mainstay.models.types import Choice, Delta, Thinking, ToolCall, ToolCallDelta, Usage
from mainstay.serving.errors import UpstreamFailed, reply_to
from mainstay.serving.surfaces.chat import ChatSurface
from mainstay.serving.types import ChatRequest

SURFACE = ChatSurface()
ASKED: Any = {"model": "acme/large", "messages": [{"role": "user", "content": "Hello"}]}
TEXT = [Delta(text="Hel", model="large-1"), Delta(text="lo"), Delta(finish_reason="stop"), Delta(usage=USAGE)]
TOOLS = [
    Delta(text="Let me see.", model="large-1"),
    Delta(tool_calls=(ToolCallDelta(0, "call_a", "weather"),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='{"city":'),)),
    Delta(tool_calls=(ToolCallDelta(1, "call_b", "clock"),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='"Bern"}'), ToolCallDelta(1, arguments="{}"))),
    Delta(finish_reason="tool_calls"),
]


def request(**fields: Any) -> ChatRequest:
    return SURFACE.read({**ASKED, **fields})


def rendered(deltas: list[Delta], **fields: Any) -> bytes:
    return streamed(SURFACE.stream(request(**fields), IDS), deltas, final(deltas))


def whole(deltas: list[Delta], **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(SURFACE.whole(final(deltas), request(**fields), IDS))
    return body


def accumulated(stream: bytes) -> dict[str, Any]:
    """What the SDK's accumulator makes of a stream."""
    with openai_client(stream).chat.completions.stream(**ASKED) as got:
        got.until_done()
        return got.current_completion_snapshot.to_dict()


def test_a_whole_answer_has_openais_form_and_says_what_mainstay_did() -> None:
    body = whole(TEXT)
    assert body.pop("mainstay")["trace_id"] == TRACE
    assert body == {
        "id": f"chatcmpl-{TRACE}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "large-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 30,
            "completion_tokens": 12,
            "total_tokens": 42,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_a_stream_says_the_role_first_the_text_in_pieces_and_mainstay_last() -> None:
    first, second, last, done = events(rendered(TEXT))
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "Hel"},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert (first["id"], first["object"], first["model"]) == (
        f"chatcmpl-{TRACE}",
        "chat.completion.chunk",
        "large-1",
    )
    assert second["choices"][0]["delta"] == {"content": "lo"}
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert last["mainstay"]["cost_usd"] == "0.0000015"
    assert "usage" not in last
    assert done == "[DONE]"


def test_usage_ends_a_stream_that_asked_for_it() -> None:
    *chunks, usage, done = events(rendered(TEXT, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 42, "[DONE]")


def test_the_sdk_puts_parallel_tool_calls_together() -> None:
    message = accumulated(rendered(TOOLS))["choices"][0]["message"]
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message["tool_calls"]
    ]
    assert calls == [("call_a", "weather", '{"city":"Bern"}'), ("call_b", "clock", "{}")]
    assert message["content"] == "Let me see."


def test_reasoning_and_what_vouches_for_it_reach_the_client() -> None:
    deltas = [
        Delta(reasoning="Hm. "),
        Delta(reasoning="Yes."),
        Delta(thinking=Thinking("Hm. Yes.", "sig")),
        Delta(text="42"),
        Delta(finish_reason="stop"),
    ]
    message = whole(deltas)["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm. Yes."
    assert message["thinking_blocks"] == [{"type": "thinking", "thinking": "Hm. Yes.", "signature": "sig"}]
    again = SURFACE.read({**ASKED, "messages": [message]}).messages[0]
    assert again.thinking == (Thinking("Hm. Yes.", "sig"),)


def test_a_structured_answer_is_parsed_by_the_sdk() -> None:
    class City(BaseModel):
        name: str

    deltas = [Delta(text='{"name":'), Delta(text='"Bern"}'), Delta(finish_reason="stop")]
    with openai_client(rendered(deltas)).chat.completions.stream(**ASKED, response_format=City) as got:
        assert got.get_final_completion().choices[0].message.parsed == City(name="Bern")


def test_log_probabilities_and_refusals_are_streamed() -> None:
    token = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    deltas = [
        Delta(text="Hi", logprobs=(token,)),
        Delta(refusal="I "),
        Delta(refusal="will not."),
        Delta(finish_reason="stop"),
    ]
    choice = accumulated(rendered(deltas))["choices"][0]
    assert choice["logprobs"]["content"] == [token]
    assert choice["message"]["refusal"] == "I will not."
    assert whole(deltas)["choices"][0]["logprobs"]["content"] == [token]


def test_several_choices_are_told_apart_by_index() -> None:
    deltas = [
        Delta(text="a"),
        Delta(text="b", index=1),
        Delta(text="A", index=0),
        Delta(finish_reason="stop", index=1),
        Delta(finish_reason="length"),
    ]
    got = accumulated(rendered(deltas, n=2))
    assert [(c["message"]["content"], c["finish_reason"]) for c in got["choices"]] == [
        ("aA", "length"),
        ("b", "stop"),
    ]
    assert [c["index"] for c in whole(deltas, n=2)["choices"]] == [0, 1]


def test_the_older_functions_are_answered_in_their_own_form() -> None:
    functions = [{"name": "weather", "parameters": {"type": "object"}}]
    deltas = [
        Delta(tool_calls=(ToolCallDelta(0, "call_a", "weather", '{"a"'),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments=":1}"),)),
        Delta(finish_reason="tool_calls"),
    ]
    choice = whole(deltas, functions=functions)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    streamed_choice = accumulated(rendered(deltas, functions=functions))["choices"][0]
    assert streamed_choice["message"]["function_call"]["arguments"] == '{"a":1}'


def test_an_apps_answer_is_called_by_the_apps_name() -> None:
    ending = final(TEXT, app="support-bot", release=3)
    asked = request(model="support-bot")
    assert json.loads(SURFACE.whole(ending, asked, IDS))["model"] == "support-bot"
    renderer = SURFACE.stream(asked, IDS)
    renderer.start(started("support-bot@3"))
    assert events(renderer.delta(Delta(text="Hi", model="large-1")))[0]["model"] == "support-bot"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"id":"x"}\n', b'{"id":"x","mainstay":'),
        (b'{ "id" : 1 }', b'{ "id" : 1,"mainstay":'),
        (b"{}", b'{"mainstay":'),
    ],
)
def test_a_providers_own_body_is_relayed_with_one_more_member(raw: bytes, expected: bytes) -> None:
    body = SURFACE.whole(final(TEXT, raw=raw), request(), IDS)
    assert body.startswith(expected)
    assert json.loads(body)["mainstay"]["trace_id"] == TRACE


def test_a_body_that_is_no_object_is_relayed_untouched() -> None:
    assert SURFACE.whole(final(TEXT, raw=b"[1]"), request(), IDS) == b"[1]"


def raw_stream() -> list[Delta]:
    def chunk(choices: str, usage: str = "null") -> bytes:
        return f'{{"id":"up-1","choices":[{choices}],"usage":{usage}}}'.encode()

    return [
        Delta(raw=chunk('{"index":0,"delta":{"role":"assistant","content":""}}')),
        Delta(text="Hi", raw=chunk('{"index":0,"delta":{"content":"Hi"},"vendor":7}')),
        Delta(finish_reason="stop", raw=chunk('{"index":0,"delta":{},"finish_reason":"stop"}')),
        Delta(usage=USAGE, raw=chunk("", '{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42}')),
    ]


def test_a_providers_own_chunks_are_relayed_but_the_last_waits_for_mainstay() -> None:
    renderer = SURFACE.stream(request(), IDS)
    renderer.start(started())
    role, text, finish, usage = raw_stream()
    assert renderer.delta(role) + renderer.delta(text) == b"".join(
        b"data: " + delta.raw + b"\n\n" for delta in (role, text) if delta.raw
    )
    assert renderer.delta(finish) + renderer.delta(usage) == b""
    last, done = events(renderer.end(final(raw_stream())))
    assert (last["id"], last["choices"][0]["finish_reason"], done) == ("up-1", "stop", "[DONE]")
    assert last["mainstay"]["trace_id"] == TRACE


def test_a_providers_chunk_of_usage_is_sent_when_it_was_asked_for() -> None:
    *_, usage, done = events(rendered(raw_stream(), stream_options={"include_usage": True}))
    assert (usage["id"], usage["usage"]["total_tokens"], done) == ("up-1", 42, "[DONE]")


def test_several_choices_of_a_providers_own_all_finish() -> None:
    finishes = [
        Delta(index=i, finish_reason="stop", raw=f'{{"choices":[{{"index":{i}}}]}}'.encode())
        for i in range(3)
    ]
    chunks = events(rendered(finishes, n=3))
    assert [chunk["choices"][0]["index"] for chunk in chunks[:-1]] == [0, 1, 2]
    assert ["mainstay" in chunk for chunk in chunks[:-1]] == [False, False, True]


def test_a_line_break_inside_a_relayed_event_does_not_end_it() -> None:
    renderer = SURFACE.stream(request(), IDS)
    assert renderer.delta(Delta(text="x", raw=b'{"a":\n1}')) == b'data: {"a":\ndata: 1}\n\n'


def test_a_failure_midway_raises_in_the_sdk_and_nothing_looks_complete() -> None:
    renderer = SURFACE.stream(request(), IDS)
    renderer.start(started())
    stream = b"".join(renderer.delta(delta) for delta in raw_stream()[:3])
    stream += renderer.error(reply_to(UpstreamFailed("The provider hung up.")))
    assert b"[DONE]" not in stream
    assert b'"finish_reason":"stop"' not in stream
    with pytest.raises(openai.APIError, match="hung up"):
        accumulated(stream)


def test_a_refused_request_has_openais_error_form() -> None:
    body = SURFACE.error_body(reply_to(UpstreamFailed("No.")))
    assert set(body) == {"error"}
    told = {name: body["error"][name] for name in ("message", "type", "param", "code")}
    assert told == {"message": "No.", "type": "upstream_error", "param": None, "code": "upstream_failed"}


@settings(max_examples=50, deadline=None)
@given(answers())
def test_a_stream_read_by_the_sdk_is_the_whole_answer(deltas: list[Delta]) -> None:
    stream = rendered(deltas, stream_options={"include_usage": True})
    got, expected = accumulated(stream), whole(deltas)
    message, wanted = got["choices"][0]["message"], expected["choices"][0]["message"]
    for name in ("content", "refusal", "reasoning_content"):
        assert (message.get(name) or None) == (wanted.get(name) or None)
    for name in ("tool_calls", "thinking_blocks"):
        for item in message.get(name) or ():
            item.pop("index", None)
            item.get("function", {}).pop("parsed_arguments", None)
        assert (message.get(name) or None) == (wanted.get(name) or None)
    assert got["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]
    assert got["usage"] == expected["usage"]
    assert (got["id"], got["model"]) == (expected["id"], expected["model"])


def test_an_answer_of_calls_alone_has_no_content() -> None:
    alone = Choice(finish_reason="tool_calls", tool_calls=(ToolCall("a", "b", "{}"),))
    body = json.loads(SURFACE.whole(replace(final(TEXT), choices=(alone,)), request(), IDS))
    assert body["choices"][0]["message"]["content"] is None


def test_estimated_usage_is_shown_as_usage() -> None:
    assert (
        json.loads(SURFACE.whole(final(TEXT, usage=Usage(1, 2, estimated=True)), request(), IDS))["usage"][
            "total_tokens"
        ]
        == 3
    )


def test_the_older_functions_are_never_answered_with_a_providers_own_events() -> None:
    functions = [{"name": "weather"}]
    deltas = [replace(delta, raw=b'{"choices":[]}') for delta in TOOLS]
    choice = accumulated(rendered(deltas, functions=functions))["choices"][0]
    assert choice["message"]["function_call"]["name"] == "weather"
