"""Reading requests of the Responses API."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces.responses import ResponsesSurface
from mainstay.serving.surfaces.responses_request import item_ids
from mainstay.serving.types import ChatRequest

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
TIME = {"type": "function", "name": "time"}


def read(**body: Any) -> ChatRequest:
    return ResponsesSurface().read({"model": "m", "input": "Hi", **body})


def test_a_string_is_a_user_message_and_instructions_are_a_system_message():
    request = read(instructions="Be brief.", stream=True)

    assert request.model == "m"
    assert request.stream
    assert request.surface == "responses"
    assert request.messages == (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi"))


def test_an_agents_turn_becomes_one_assistant_message_followed_by_its_results():
    request = read(
        input=[
            {"role": "user", "content": "Weather and time?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "zzz"},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
            },
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "weather",
                "arguments": "{}",
                "status": "completed",
            },
            {"type": "function_call", "call_id": "c2", "name": "time", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "noon"}],
            },
        ]
    )

    assert request.messages == (
        ChatMessage("user", "Weather and time?"),
        ChatMessage(
            "assistant",
            "Let me look.",
            tool_calls=(ToolCall("c1", "weather", "{}"), ToolCall("c2", "time", '{"a":1}')),
            thinking=(Thinking(encrypted="zzz", id="rs_1"),),
        ),
        ChatMessage("tool", "rain", tool_call_id="c1"),
        ChatMessage("tool", "noon", tool_call_id="c2"),
    )


def test_images_files_and_audio_are_parts_in_order():
    content = [
        {"type": "input_text", "text": "See ", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
        {"type": "input_file", "file_url": "https://x.test/b.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "mp3"}},
        {"type": "input_text", "text": "these."},
    ]

    (message,) = read(input=[{"type": "message", "role": "user", "content": content}]).messages

    assert message.content == "See these."
    assert message.parts == (
        TextPart("See ", CacheMark()),
        MediaPart("image", url="https://x.test/a.png", detail="low"),
        MediaPart("image", "image/png", "AAAA"),
        MediaPart("file", "application/pdf", "BBBB", name="a.pdf"),
        MediaPart("file", url="https://x.test/b.pdf"),
        MediaPart("file", file_id="file_1"),
        MediaPart("audio", "audio/mpeg", "CCCC"),
        TextPart("these."),
    )


def test_what_is_asked_of_the_model_reaches_the_call():
    request = read(
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "name": "time"},
        parallel_tool_calls=False,
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        top_logprobs=3,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        reasoning={"effort": "low", "summary": "auto"},
        text={
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True},
        },
        metadata={"k": "v"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="pk",
        service_tier="flex",
        max_tool_calls=4,
        truncation="disabled",
        background=False,
        conversation=None,
        store=False,
    )
    call = request.call

    assert call.tools == (Tool("weather", None, {"type": "object"}, True), Tool("time"))
    assert call.tool_choice == ToolChoice("tool", "time")
    assert call.parallel_tool_calls is False
    assert (call.max_tokens, call.temperature, call.top_p) == (50, 0.5, 0.9)
    assert (call.logprobs, call.top_logprobs) == (True, 3)
    assert call.reasoning == Reasoning("low", summary="auto")
    assert call.response_format == ResponseFormat({"type": "object"}, "a", None, True)
    assert call.user == "u"
    assert call.extra == {
        "verbosity": "low",
        "safety_identifier": "s",
        "prompt_cache_key": "pk",
        "service_tier": "flex",
    }
    assert request.metadata == {"k": "v"}
    assert request.hints["store"] is False


def test_allowed_tools_are_the_only_ones_the_model_hears_of():
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}

    request = read(tools=[WEATHER, TIME], tool_choice=choice)

    assert [tool.name for tool in request.call.tools] == ["time"]
    assert request.call.tool_choice == ToolChoice("required")
    assert [tool["name"] for tool in request.hints["tools"]] == ["weather", "time"]
    assert request.hints["tool_choice"] == choice


def test_an_unknown_field_is_passed_on_for_a_provider_of_the_family():
    call = read(seed=7).call

    assert call.extra == {"seed": 7}
    assert (call.source_format, call.source) == ("openai.chat", None)
    assert read().call.source_format is None


def test_reasoning_from_openai_itself_keeps_the_id_it_had_there():
    item = {"type": "reasoning", "id": "rs_theirs", "summary": [], "encrypted_content": "gAAAA"}

    (message,) = read(input=[item]).messages

    assert message.thinking == (Thinking(encrypted="gAAAA", id="rs_theirs"),)


def user(*content: Any) -> list[Any]:
    return [{"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{"role": "user", "content": "x", "surprise": 1}]}, "input[0].surprise"),
        ({"input": user({"type": "output_text", "text": "x"})}, "input[0].content[0].type"),
        ({"input": user({"type": "input_text"})}, "input[0].content[0].text"),
        ({"input": user({"type": "input_text", "text": "x", "extra": 1})}, "input[0].content[0].extra"),
        ({"input": user({"type": "input_image"})}, "input[0].content[0].image_url"),
        ({"input": user({"type": "input_image", "image_url": "ftp://x"})}, "input[0].content[0].image_url"),
        ({"input": user({"type": "input_file"})}, "input[0].content[0].file_data"),
        ({"input": user({"type": "input_audio"})}, "input[0].content[0].input_audio"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "mainstay.1:x"}]},
            "input[0].encrypted_content",
        ),
        ({"deep": deep(200)}, "deep"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER, {"type": "mcp", "server_label": "x"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**TIME, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TIME, "parameters": []}]}, "tools[0].parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tools": [TIME], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [TIME], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.tools"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": "none"}}, "text.verbosity"),
        ({"text": {"colour": "red"}}, "text.colour"),
        ({"reasoning": {"summary": "x"}}, "reasoning.summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"include": ["nothing"]}, "include[0]"),
        ({"include": "x"}, "include"),
        ({"include": [{}]}, "include[0]"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"metadata": {"k" * 65: ""}}, "metadata." + "k" * 64),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"store": "yes"}, "store"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"instructions": 1}, "instructions"),
    ],
)
def test_a_mistake_is_told_with_its_path(body: dict[str, Any], param: str):
    with pytest.raises(BadField) as caught:
        read(**body)

    assert caught.value.detail["param"] == param


NAMES = [
    "type", "role", "content", "id", "call_id", "name", "arguments", "output", "summary", "text", "refusal",
    "encrypted_content", "image_url", "file_data", "input_audio", "format", "schema", "mode", "tools", "detail",
]  # fmt: skip
WORDS = [
    "message", "user", "assistant", "system", "function_call", "function_call_output", "reasoning", "function",
    "item_reference", "input_text", "output_text", "refusal", "input_image", "input_file", "input_audio",
    "summary_text", "reasoning_text", "allowed_tools", "json_schema", "auto", "c1", "data:a/b;base64,AA", "",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 20)
    | st.floats(0, 2)
    | st.sampled_from(WORDS)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
FIELDS = [
    "input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "stream",
    "stream_options", "store", "top_logprobs", "max_output_tokens", "previous_response_id", "service_tier",
    "background", "prompt", "conversation", "parallel_tool_calls", "user", "unknown",
]  # fmt: skip


def refused_path(body: dict[str, Any]) -> str | None:
    """The path that reading this body is refused with; None when it is read."""
    try:
        assert read(**body).messages
    except BadField as error:
        param = error.detail["param"]
        assert isinstance(param, str)
        return param
    return None


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_json_is_read_or_refused_with_a_path(body: dict[str, Any]):
    assert refused_path(body) != ""
    assert all(isinstance(name, str) for name in item_ids(body))
