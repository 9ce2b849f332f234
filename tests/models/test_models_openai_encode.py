"""Requests on the wire of OpenAI chat completions: every field of the normal form, or a refusal that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.core.errors import ConfigError
from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.openai_encode import Dialect, Encoder
from mainstay.models.types import (
    CacheMark,
    MediaPart,
    Reasoning,
    ResponseFormat,
    TextPart,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def body(
    call: ChatCall, *, stream: bool = False, field: str = "max_tokens", **dialect: Any
) -> dict[str, Any]:
    written = Encoder("vendor", field, Dialect(**dialect)).encode(call, stream=stream)
    return json.loads(written)  # type: ignore[no-any-return]


def messages(*given: ChatMessage, **dialect: Any) -> list[dict[str, Any]]:
    return body(ChatCall("m", given), **dialect)["messages"]  # type: ignore[no-any-return]


def user(*parts: Any) -> ChatMessage:
    return ChatMessage("user", parts=parts)


def test_every_setting_is_written_under_openais_name():
    call = ChatCall(
        "m",
        (ChatMessage("user", "Hi"),),
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=("END",),
        seed=7,
        n=2,
        logprobs=True,
        top_logprobs=3,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        logit_bias={"50256": -100.0},
        user="u-1",
        reasoning=Reasoning(effort="low"),
        max_tokens=9,
        extra={"min_p": 0.05},
    )

    assert body(call) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "seed": 7,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "logit_bias": {"50256": -100.0},
        "user": "u-1",
        "reasoning_effort": "low",
        "max_tokens": 9,
        "min_p": 0.05,
    }


def test_tools_and_their_choice_are_written_out():
    call = ChatCall(
        "m",
        (ChatMessage("user", "Hi"),),
        tools=(Tool("weather", "Tells it.", SCHEMA, strict=True), Tool("clock")),
        tool_choice=ToolChoice("tool", "weather"),
        parallel_tool_calls=False,
    )

    written = body(call)

    assert written["tools"] == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True},
        },
        {"type": "function", "function": {"name": "clock"}},
    ]
    assert written["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert written["parallel_tool_calls"] is False


@pytest.mark.parametrize("mode", ["auto", "none", "required"])
def test_a_choice_without_a_name_is_a_word(mode):
    call = ChatCall("m", (), tools=(Tool("clock"),), tool_choice=ToolChoice(mode))

    assert body(call)["tool_choice"] == mode


def test_calls_of_tools_and_their_results_go_back():
    written = messages(
        ChatMessage(
            "assistant", tool_calls=(ToolCall("c1", "clock", "{}"), ToolCall("c2", "clock", '{"a":1}'))
        ),
        ChatMessage("tool", "12:00", tool_call_id="c1"),
        ChatMessage("tool", "no clock", tool_call_id="c2", is_error=True),
    )

    assert written[0]["content"] is None
    assert [c["id"] for c in written[0]["tool_calls"]] == ["c1", "c2"]
    assert written[0]["tool_calls"][1]["function"] == {"name": "clock", "arguments": '{"a":1}'}
    assert written[1] == {"role": "tool", "content": "12:00", "tool_call_id": "c1"}
    assert written[2]["content"] == "Error: no clock"


def test_media_are_written_as_parts_in_order():
    [written] = messages(
        user(
            TextPart("Look: "),
            MediaPart("image", url="https://e.org/a.png", detail="high"),
            MediaPart("image", media_type="image/jpeg", data="aGk="),
            MediaPart("audio", media_type="audio/wav", data="aGk="),
            MediaPart("file", media_type="application/pdf", data="aGk=", name="a.pdf"),
            MediaPart("file", url="data:text/plain;base64,aGk=", name="a.txt"),
            MediaPart("file", file_id="file-1"),
        )
    )

    assert written["content"] == [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,aGk="}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]


@pytest.mark.parametrize(
    "message",
    [
        user(MediaPart("image", file_id="f")),
        user(MediaPart("audio", media_type="audio/ogg", data="aGk=")),
        user(MediaPart("audio", url="https://e.org/a.wav")),
        user(MediaPart("file", url="https://e.org/a.pdf")),
        ChatMessage("tool", parts=(MediaPart("image", url="https://e.org/a.png"),), tool_call_id="c"),
    ],
)
def test_what_the_wire_cannot_say_is_refused_with_its_place(message):
    with pytest.raises(ProviderBadRequest, match=r"messages\[0\]\.content\[0\]: vendor takes"):
        messages(message)


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (ResponseFormat(), {"type": "json_object"}),
        (
            ResponseFormat(SCHEMA, "place", "Where.", strict=True),
            {
                "type": "json_schema",
                "json_schema": {"name": "place", "schema": SCHEMA, "description": "Where.", "strict": True},
            },
        ),
    ],
)
def test_structured_output_is_asked_for(wanted, written):
    assert body(ChatCall("m", (), response_format=wanted))["response_format"] == written


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning("minimal"), "minimal"),
        (Reasoning(budget_tokens=1024), "low"),
        (Reasoning(budget_tokens=16384), "medium"),
        (Reasoning(budget_tokens=32000), "high"),
        (Reasoning(budget_tokens=0), None),
        (Reasoning("low", budget_tokens=32000), "low"),
    ],
)
def test_a_budget_of_thinking_becomes_an_effort(reasoning, effort):
    assert body(ChatCall("m", (), reasoning=reasoning)).get("reasoning_effort") == effort


def test_developer_messages_are_system_messages_where_that_role_is_unknown():
    message = ChatMessage("developer", "Be brief.")

    assert messages(message)[0]["role"] == "system"
    assert messages(message, developer_role=True)[0]["role"] == "developer"


def test_a_vendors_own_fields_are_used():
    call = ChatCall(
        "m",
        (
            ChatMessage("user", parts=(TextPart("long", CacheMark("1h")),)),
            ChatMessage("assistant", "Yes.", thinking=(Thinking("because"),)),
        ),
        seed=5,
    )

    written = body(
        call, stream=True, seed_field="random_seed", cache_control=True, reasoning_field="reasoning"
    )
    plain = body(call, stream=True)

    assert written["random_seed"] == 5
    assert written["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert written["messages"][1]["reasoning"] == "because"
    assert "random_seed" not in plain
    assert "cache_control" not in plain["messages"][0]["content"][0]
    assert "reasoning" not in plain["messages"][1]


def test_usage_is_asked_of_a_stream_unless_the_vendor_refuses_that():
    call = ChatCall("m", ())

    assert body(call, stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body(call, stream=True, stream_usage=False)
    assert "stream_options" not in body(call)


def source_call(source: dict[str, Any], **more: Any) -> ChatCall:
    return ChatCall(
        "theirs", (ChatMessage("user", "Hi"),), source=source, source_format="openai.chat", **more
    )


def test_a_clients_own_body_goes_as_it_is_but_for_what_is_ours():
    source = {
        "model": "ours",
        "messages": [{"role": "user", "content": "Hi", "x-vendor": 1}],
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "max_tokens": 500,
        "min_p": 0.1,
    }

    written = body(source_call(source, max_tokens=100), stream=True, field="max_completion_tokens")

    assert written == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "Hi", "x-vendor": 1}],
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
        "max_completion_tokens": 100,
        "min_p": 0.1,
    }
    assert source["model"] == "ours"


def test_a_stream_may_be_asked_whole_and_the_other_way_round():
    streamed = {"messages": [], "stream": True, "stream_options": {"include_usage": True}}

    assert body(source_call(streamed)) == {"messages": [], "model": "theirs"}
    assert body(source_call({"messages": []}), stream=True)["stream"] is True


def test_a_clients_limit_of_tokens_gets_the_vendors_name():
    source = {"messages": [], "max_tokens": None, "max_completion_tokens": 50}

    assert body(source_call(source)) == {"messages": [], "model": "theirs", "max_tokens": 50}


def test_a_clients_own_body_is_adapted_where_the_vendor_would_refuse_it():
    source = {"messages": [{"role": "developer", "content": "Be brief."}], "seed": 3}

    written = body(source_call(source), seed_field="random_seed")

    assert written["messages"] == [{"role": "system", "content": "Be brief."}]
    assert written["random_seed"] == 3
    assert "seed" not in written


def test_a_body_of_another_wire_is_not_passed_through():
    call = ChatCall(
        "m", (ChatMessage("user", "Hi"),), source={"input": "Hi"}, source_format="openai.responses"
    )

    assert body(call) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_options_of_a_provider_are_read_and_mistakes_told():
    given = Dialect.of("house", {"developer_role": "true", "seed_field": "random_seed"}, Dialect())

    assert given == Dialect(developer_role=True, seed_field="random_seed")
    with pytest.raises(ConfigError, match="Did you mean 'developer_role'"):
        Dialect.of("house", {"developper_role": "true"}, Dialect())
