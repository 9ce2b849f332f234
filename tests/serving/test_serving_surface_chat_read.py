"""Chat completion requests into the normal form: what is read, and how mistakes are named."""

from __future__ import annotations

from typing import Any

import pytest
from surface_kit import deep

from mainstay.models.types import (
    CacheMark,
    ChatMessage,
    MediaPart,
    Reasoning,
    ResponseFormat,
    TextPart,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
)
from mainstay.serving.errors import BadField, reply_to
from mainstay.serving.surfaces.chat_read import read_chat_request

USER = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": SCHEMA}}
CALL = {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
DEEP = deep(150)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def read_part(part: dict[str, Any]) -> Any:
    messages = [{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}]
    return read_chat_request(body(messages=messages)).messages[0].parts[1]


def test_the_usual_request_is_read_and_kept_as_its_source() -> None:
    asked = body(
        messages=[{"role": "system", "content": "Be brief."}, USER],
        temperature=0.5,
        max_tokens=9,
        stop="x",
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
        metadata={"team": "a"},
        user="u1",
    )
    request = read_chat_request(asked)
    call = request.call
    assert (request.model, request.stream, request.include_usage, request.user) == ("m", True, True, "u1")
    assert request.metadata == {"team": "a"}
    assert call.messages == (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))
    assert (call.temperature, call.max_tokens, call.stop, call.seed) == (0.5, 9, ("x",), 7)
    assert (call.source, call.source_format, call.extra) == (asked, "openai.chat", {})


def test_sampling_fields_have_their_normal_form() -> None:
    call = read_chat_request(
        body(
            n=3,
            top_p=0.9,
            top_k=40,
            logprobs=True,
            top_logprobs=5,
            frequency_penalty=-1,
            presence_penalty=2,
            logit_bias={"50256": -100},
            reasoning_effort="high",
        )
    ).call
    assert (call.n, call.top_p, call.top_k, call.logprobs, call.top_logprobs) == (3, 0.9, 40, True, 5)
    assert (call.frequency_penalty, call.presence_penalty) == (-1, 2)
    assert (call.logit_bias, call.reasoning) == ({"50256": -100}, Reasoning(effort="high"))


def test_no_reasoning_is_a_budget_of_nothing() -> None:
    assert read_chat_request(body(reasoning_effort="none")).call.reasoning == Reasoning(budget_tokens=0)


def test_the_newer_token_limit_wins() -> None:
    assert read_chat_request(body(max_tokens=5, max_completion_tokens=7)).call.max_tokens == 7


def test_one_text_part_is_as_good_as_a_string_and_several_stay_apart() -> None:
    one = [{"type": "text", "text": "Hello"}]
    two = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    request = read_chat_request(
        body(messages=[{"role": "user", "content": one}, {"role": "user", "content": two}])
    )
    assert request.messages == (
        ChatMessage("user", "Hello"),
        ChatMessage("user", "Hello", parts=(TextPart("Hel"), TextPart("lo"))),
    )


def test_the_place_of_a_cache_mark_is_kept() -> None:
    part = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    tool = {**WEATHER, "cache_control": {"type": "ephemeral"}}
    call = read_chat_request(body(messages=[{"role": "system", "content": [part]}, USER], tools=[tool])).call
    assert call.messages[0].parts == (TextPart("long", CacheMark("1h")),)
    assert call.tools[0].cache == CacheMark("5m")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
            MediaPart("image", url="https://x/a.png", detail="low"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            MediaPart("image", "image/png", "AAAA"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            MediaPart("audio", "audio/mpeg", "AAAA"),
        ),
        ({"type": "file", "file": {"file_id": "file_1"}}, MediaPart("file", file_id="file_1")),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            MediaPart("file", "application/pdf", "AA==", name="a.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "a.PDF", "file_data": "AA=="}},
            MediaPart("file", "application/pdf", "AA==", name="a.PDF"),
        ),
    ],
)
def test_media_parts_are_read(part: dict[str, Any], expected: MediaPart) -> None:
    assert read_part(part) == expected


def test_a_conversation_with_tools_is_read() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "call_a", "content": "Sunny."},
    ]
    call = read_chat_request(body(messages=messages, tools=[WEATHER], parallel_tool_calls=False)).call
    assert call.messages[1].tool_calls == (ToolCall("call_a", "weather", '{"city":"Bern"}'),)
    assert call.messages[2] == ChatMessage("tool", "Sunny.", tool_call_id="call_a")
    assert call.tools == (Tool("weather", "Now.", SCHEMA),)
    assert call.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "weather"}}, ToolChoice("tool", "weather")),
    ],
)
def test_the_choice_of_a_tool_is_read(given: Any, expected: ToolChoice) -> None:
    assert read_chat_request(body(tools=[WEATHER], tool_choice=given)).call.tool_choice == expected


def test_a_choice_among_no_tools_that_asks_for_nothing_is_ignored() -> None:
    call = read_chat_request(body(tools=[], tool_choice="none", parallel_tool_calls=True)).call
    assert (call.tool_choice, call.parallel_tool_calls) == (None, None)


def test_the_older_functions_become_tools_and_their_results_find_their_calls() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "Sunny."},
    ]
    asked = body(
        messages=messages, functions=[{"name": "weather", "parameters": SCHEMA}], function_call="auto"
    )
    request = read_chat_request(asked)
    made, result = request.messages[1], request.messages[2]
    assert result.role == "tool"
    assert result.tool_call_id == made.tool_calls[0].id
    assert request.call.tools == (Tool("weather", None, SCHEMA),)
    assert request.call.tool_choice == ToolChoice("auto")
    assert request.hints == {"legacy_functions": True}


def test_structured_output_is_read() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    assert read_chat_request(body(response_format=form)).call.response_format == ResponseFormat(
        SCHEMA, "place", None, True
    )
    assert (
        read_chat_request(body(response_format={"type": "json_object"})).call.response_format
        == ResponseFormat()
    )
    assert read_chat_request(body(response_format={"type": "text"})).call.response_format is None


def test_reasoning_is_handed_back_with_its_signature_where_there_is_one() -> None:
    plain = {"role": "assistant", "content": "a", "reasoning_content": "Hm."}
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
    ]
    signed = {**plain, "thinking_blocks": blocks}
    messages = read_chat_request(body(messages=[USER, plain, signed])).messages
    assert messages[1].thinking == (Thinking("Hm."),)
    assert messages[2].thinking == (Thinking("Hm.", "s"), Thinking(encrypted="x"))


def test_what_an_assistant_refused_is_what_it_said() -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    assert read_chat_request(body(messages=[USER, message])).messages[1].content == "No."


def test_fields_only_some_providers_know_are_kept_apart() -> None:
    asked = {"min_p": 0.1, "safety_identifier": "u", "prompt_cache_key": "k", "store": False}
    assert read_chat_request(body(**asked)).call.extra == asked


def test_null_is_the_same_as_left_out() -> None:
    names = ("temperature", "tools", "stop", "audio", "functions", "response_format", "anything")
    assert read_chat_request(body(**dict.fromkeys(names))).call.extra == {}


def messages(*items: Any) -> dict[str, Any]:
    return {"messages": [USER, *items]}


def content(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


PART = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        (messages("x"), "messages[1]"),
        (messages({"role": "wizard", "content": "x"}), "messages[1].role"),
        (messages({"role": ["user"], "content": "x"}), "messages[1].role"),
        (messages({"role": "user"}), "messages[1].content"),
        (messages({"role": "assistant"}), "messages[1].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (messages({"role": "user", "content": [{"type": "image_url"}]}), "messages[1].content[0].image_url"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
            "messages[0].tool_calls[0]",
        ),
        (messages({"role": "user", "content": "x", "name": 1}), "messages[1].name"),
        (messages({"role": "user", "content": "x", "tool_call_id": "a"}), "messages[1].tool_call_id"),
        (messages({"role": "user", "content": "x", "tool_calls": [CALL]}), "messages[1].tool_calls"),
        (messages({"role": "user", "content": "x", "odd": DEEP}), "messages[1].odd"),
        (messages({"role": "tool", "content": "x"}), "messages[1].tool_call_id"),
        (messages({"role": "function", "name": "f", "content": "x"}), "messages[1].name"),
        (messages({"role": "assistant", "tool_calls": [1]}), "messages[1].tool_calls[0]"),
        (
            messages({"role": "assistant", "tool_calls": [{**CALL, "id": None}]}),
            "messages[1].tool_calls[0].id",
        ),
        (
            messages({"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            messages({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}),
            "messages[1].tool_calls[0].type",
        ),
        (messages({"role": "assistant", "content": "x", "audio": {"id": "a"}}), "messages[1].audio"),
        (
            messages({"role": "assistant", "content": "x", "thinking_blocks": [{"type": "odd"}]}),
            "messages[1].thinking_blocks[0].type",
        ),
        (content("x"), PART),
        (content({"type": "video"}), f"{PART}.type"),
        (content({"type": "text"}), f"{PART}.text"),
        (content({"type": "text", "text": "x", "odd": DEEP}), f"{PART}.odd"),
        (
            content({"type": "text", "text": "x", "cache_control": {"type": "forever"}}),
            f"{PART}.cache_control",
        ),
        (
            content({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}}),
            f"{PART}.cache_control.ttl",
        ),
        (content({"type": "image_url"}), f"{PART}.image_url"),
        (content({"type": "image_url", "image_url": {"url": "file:///etc"}}), f"{PART}.image_url.url"),
        (content({"type": "input_audio", "input_audio": {"format": "ogg"}}), f"{PART}.input_audio.format"),
        (content({"type": "file", "file": {}}), f"{PART}.file.file_data"),
        ({"model": ""}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"models": ["acme/large"]}, "models"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"seed": "1"}, "seed"),
        ({"metadata": []}, "metadata"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [WEATHER, {"type": "function"}]}, "tools[1].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools[0]"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}], "tools": [WEATHER]}, "functions"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"odd": DEEP}, "odd"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        read_chat_request(body(**fields))
    reply = reply_to(caught.value)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_request_without_a_model_or_messages_is_refused(missing: str) -> None:
    with pytest.raises(BadField, match=missing):
        read_chat_request({name: value for name, value in body().items() if name != missing})


def test_a_field_nested_without_end_is_refused() -> None:
    for name in ("metadata", "response_format"):
        with pytest.raises(BadField, match=f"{name}: is nested"):
            read_chat_request(body(**{name: {"a": deep(600)}}))
