"""What a call becomes in Ollama's native wire format, and what is refused because it cannot be said there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.ollama_wire import encode
from mainstay.models.types import (
    MediaPart,
    Reasoning,
    ResponseFormat,
    TextPart,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool("weather", "Says it", SCHEMA)
PNG = MediaPart("image", media_type="image/png", data="cG5n")


def call(*messages: ChatMessage, **more: Any) -> ChatCall:
    return ChatCall(model="qwen3:4b", messages=messages or (ChatMessage("user", "Hi"),), **more)


def body(chat: ChatCall) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(encode(chat, "ollama", stream=False))
    return written


def messages(*said: ChatMessage) -> list[Any]:
    written: list[Any] = body(call(*said))["messages"]
    return written


def refusal(chat: ChatCall) -> str:
    with pytest.raises(ProviderBadRequest) as caught:
        encode(chat, "ollama", stream=False)
    return str(caught.value)


def test_a_plain_call_asks_not_to_be_cut():
    assert body(call()) == {
        "model": "qwen3:4b",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "truncate": False,
        "shift": False,
    }


def test_sampling_goes_into_options():
    chat = call(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=("a", "b"),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        extra={"min_p": 0.05, "repetition_penalty": 1.1, "store": False},
    )

    assert body(chat)["options"] == {
        "num_predict": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["a", "b"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
    }


@pytest.mark.parametrize(
    ("wanted", "written"), [(ResponseFormat(), "json"), (ResponseFormat(SCHEMA, strict=True), SCHEMA)]
)
def test_structured_output_is_a_format(wanted, written):
    assert body(call(response_format=wanted))["format"] == written


@pytest.mark.parametrize(
    ("reasoning", "think"),
    [
        (Reasoning(effort="minimal"), "low"),
        (Reasoning(effort="medium"), "medium"),
        (Reasoning(effort="high"), "high"),
        (Reasoning(effort="none"), False),
        (Reasoning(budget_tokens=0), False),
        (Reasoning(summary="auto"), True),
    ],
)
def test_thinking_is_on_off_or_a_level(reasoning, think):
    assert body(call(reasoning=reasoning))["think"] == think


@pytest.mark.parametrize("reasoning", [None, Reasoning(), Reasoning(summary="none")])
def test_thinking_that_nobody_asked_for_is_the_models_own(reasoning):
    assert "think" not in body(call(reasoning=reasoning))


def test_tools_are_functions_and_none_of_them_leaves_them_out():
    written = body(call(tools=(WEATHER, Tool("clock"))))
    none = body(call(tools=(WEATHER,), tool_choice=ToolChoice("none")))

    assert written["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "Says it", "parameters": SCHEMA}},
        {
            "type": "function",
            "function": {
                "name": "clock",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ]
    assert "tools" not in none


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"reasoning": Reasoning(budget_tokens=9)}, "reasoning"),
        ({"reasoning": Reasoning(effort="xhigh")}, "reasoning_effort"),
        ({"tools": (WEATHER,), "tool_choice": ToolChoice("required")}, "tool_choice"),
        ({"tools": (WEATHER,), "tool_choice": ToolChoice("tool", "weather")}, "tool_choice"),
        ({"tools": (WEATHER,), "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": (WEATHER, Tool("a", strict=True))}, "tools[1].function.strict"),
        ({"extra": {"num_gpu": 9}}, "num_gpu"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(more, field):
    assert refusal(call(**more)).startswith(f"{field}: ollama")


def test_a_conversation_keeps_its_calls_results_and_thinking():
    made = ToolCall("call_1", "weather", '{"city": "Ghent"}')
    thinking = (Thinking("Hm."), Thinking("Claude's", "sig=="), Thinking(encrypted="abc"))

    written = messages(
        ChatMessage("developer", "Be brief."),
        ChatMessage("user", "Hi"),
        ChatMessage("assistant", "I ask.", tool_calls=(made,), thinking=thinking),
        ChatMessage("tool", "Broken", tool_call_id="call_1", is_error=True),
        ChatMessage("tool", "Noon", tool_call_id="call_9", name="clock"),
    )

    assert written == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "I ask.",
            "thinking": "Hm.",
            "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Ghent"}}}],
        },
        {"role": "tool", "content": "Error: Broken", "tool_name": "weather", "tool_call_id": "call_1"},
        {"role": "tool", "content": "Noon", "tool_name": "clock", "tool_call_id": "call_9"},
    ]


def test_images_stand_beside_the_text():
    url = MediaPart("image", url="data:image/png;base64,YWJj")

    written = messages(ChatMessage("user", "", (TextPart("See"), PNG, TextPart("and"), url)))

    assert written == [{"role": "user", "content": "See\nand", "images": ["cG5n", "YWJj"]}]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (MediaPart("image", url="https://host/a.png"), "messages[0].content[1]"),
        (MediaPart("image", file_id="files/abc"), "messages[0].content[1]"),
        (MediaPart("file", media_type="application/pdf", data="cGRm"), "messages[0].content[1]"),
        (MediaPart("audio", media_type="audio/wav", data="d2F2"), "messages[0].content[1]"),
        (
            MediaPart("image", media_type="image/png", data="cG5n", detail="low"),
            "messages[0].content[1].detail",
        ),
    ],
)
def test_media_that_cannot_be_sent_are_refused(part, field):
    assert refusal(call(ChatMessage("user", "", (TextPart("See"), part)))).startswith(f"{field}: ")


def test_names_of_speakers_and_arguments_that_are_no_object_are_refused():
    bad = ToolCall("a", "f", "[1]")

    assert refusal(call(ChatMessage("user", "Hi", name="Ann"))).startswith("messages[0].name: ")
    assert refusal(call(ChatMessage("assistant", tool_calls=(bad,)))).startswith(
        "messages[0].tool_calls[0].function.arguments: "
    )
