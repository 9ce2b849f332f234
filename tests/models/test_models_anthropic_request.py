"""How calls become Anthropic requests; their shape is checked against the official SDK's own types."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from anthropic.types import ContentBlockParam, MessageParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.anthropic_wire import encode, encode_count
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

PDF = b64encode(b"%PDF-1.7").decode()
PNG = b64encode(b"\x89PNG").decode()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
USER = ChatMessage("user", "Hi")


def body(*messages: ChatMessage, **more: Any) -> dict[str, Any]:
    call = ChatCall(model="m", messages=messages or (USER,), **more)
    written: dict[str, Any] = json.loads(encode(call, "claude", stream=False))
    check(written)
    return written


def check(written: dict[str, Any]) -> None:
    """By the SDK's types; lists in them are lazy, so that their items are checked apart."""
    PARAMS.validate_python(written)
    for tool in written.get("tools", []):
        TOOL.validate_python(tool)
    for turn in written["messages"]:
        MESSAGE.validate_python(turn)
    blocks = [block for turn in written["messages"] for block in turn["content"]]
    results = [inner for block in blocks for inner in block.get("content", [])]
    for block in blocks + results:
        BLOCK.validate_python(block)


def refusal(*messages: ChatMessage, **more: Any) -> str:
    with pytest.raises(ProviderBadRequest) as caught:
        body(*messages, **more)
    return caught.value.message


PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
MESSAGE: TypeAdapter[Any] = TypeAdapter(MessageParam)
BLOCK: TypeAdapter[Any] = TypeAdapter(ContentBlockParam)
TOOL: TypeAdapter[Any] = TypeAdapter(ToolParam)


def test_a_plain_call_is_small():
    assert body() == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": False,
    }


def test_every_sampling_setting_has_its_name():
    written = body(max_tokens=9, temperature=0.5, top_p=0.9, top_k=40, stop=("END",), user="u-1")

    assert (written["max_tokens"], written["temperature"], written["top_p"], written["top_k"]) == (
        9,
        0.5,
        0.9,
        40,
    )
    assert written["stop_sequences"] == ["END"]
    assert written["metadata"] == {"user_id": "u-1"}


def test_a_temperature_above_one_is_refused_by_name():
    assert refusal(temperature=1.5) == "temperature: claude takes 0 to 1, not 1.5."


# --- conversations ----------------------------------------------------------------------------------------------


def test_system_and_developer_messages_at_the_start_become_system_blocks():
    written = body(ChatMessage("system", "Be brief."), ChatMessage("developer", "Be kind."), USER)

    assert written["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert len(written["messages"]) == 1


def test_a_system_message_after_a_users_turn_stays_where_it_is():
    written = body(USER, ChatMessage("developer", "Now in French."))

    assert [turn["role"] for turn in written["messages"]] == ["user", "system"]


def test_a_system_message_after_an_assistants_turn_is_refused_by_its_place():
    said = refusal(USER, ChatMessage("assistant", "Hello"), ChatMessage("system", "x"), USER)

    assert said.startswith("messages[2]:")


def test_adjacent_messages_of_one_role_are_one_turn_and_empty_ones_none():
    written = body(USER, ChatMessage("user", "There"), ChatMessage("assistant", ""), ChatMessage("user", "?"))

    assert written["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("Hi", "There", "?")]}
    ]


def test_names_of_speakers_are_refused():
    assert refusal(ChatMessage("user", "Hi", name="Ann")).startswith("messages[0].name:")


def test_tools_calls_and_their_results_make_a_turn_each():
    calls = (ToolCall("t1", "weather", '{"city": "Ghent"}'), ToolCall("t2", "clock", ""))
    picture = MediaPart("image", "image/png", PNG)
    written = body(
        USER,
        ChatMessage("assistant", "I ask.", tool_calls=calls),
        ChatMessage("tool", "12 °C", tool_call_id="t1", name="weather", cache=CacheMark("1h")),
        ChatMessage("tool", parts=(TextPart("broken"), picture), tool_call_id="t2", is_error=True),
        ChatMessage("user", "And?"),
    )

    assert written["messages"][1]["content"] == [
        {"type": "text", "text": "I ask."},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ghent"}},
        {"type": "tool_use", "id": "t2", "name": "clock", "input": {}},
    ]
    assert written["messages"][2] == {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "12 °C"}],
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            },
            {
                "type": "tool_result",
                "tool_use_id": "t2",
                "is_error": True,
                "content": [
                    {"type": "text", "text": "broken"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                ],
            },
            {"type": "text", "text": "And?"},
        ],
    }


@pytest.mark.parametrize("arguments", ["{oops", "[1]", "7"])
def test_arguments_that_are_no_json_object_are_refused_by_name(arguments):
    said = refusal(USER, ChatMessage("assistant", tool_calls=(ToolCall("t", "f", arguments),)))

    assert said.startswith("messages[1].tool_calls[0].function.arguments:")


def test_a_result_without_its_call_is_refused():
    assert refusal(USER, ChatMessage("tool", "x")).startswith("messages[1].tool_call_id:")


def test_thinking_goes_back_first_and_unchanged():
    thoughts = (Thinking("Hm.", "sig=="), Thinking(encrypted="ZW5j"))
    written = body(
        USER,
        ChatMessage(
            "assistant", "Yes.", thinking=thoughts, tool_calls=(ToolCall("t", "f", "{}"),), cache=CacheMark()
        ),
    )

    assert written["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "text", "text": "Yes."},
        {
            "type": "tool_use",
            "id": "t",
            "name": "f",
            "input": {},
            "cache_control": {"type": "ephemeral"},
        },
    ]


def test_thinking_that_was_not_claudes_is_left_out():
    foreign = (
        Thinking("Hm."),
        Thinking("Hm.", id="rs_1", encrypted="x"),
        Thinking("Hm.", "gemini:thought:eA=="),
    )

    written = body(USER, ChatMessage("assistant", "Yes.", thinking=foreign))

    assert written["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]


def test_a_clients_own_body_with_geminis_thinking_is_written_anew():
    answered = ChatMessage("assistant", "Yes.", thinking=(Thinking("Hm.", "gemini:thought:eA=="),))
    source = {
        "model": "app",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "as the client sent it"}],
    }

    written = body(USER, answered, source=source, source_format="anthropic.messages")

    assert written["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]


# --- media ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            MediaPart("image", "image/png", PNG, cache=CacheMark()),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (
            MediaPart("image", url="https://example.org/a.png", detail="high"),
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        ),
        (
            MediaPart("image", url=f"data:image/webp;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PNG}},
        ),
        (
            MediaPart("file", "application/pdf", PDF, name="a.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.pdf",
            },
        ),
        (
            MediaPart("file", "text/plain", b64encode("Grüße".encode()).decode()),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        ),
        (
            MediaPart("file", url="https://example.org/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        ),
        (
            MediaPart("file", file_id="file_1"),
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ),
    ],
)
def test_images_and_documents_have_their_blocks(part, block):
    written = body(ChatMessage("user", "See", parts=(TextPart("See"), part)))

    assert written["messages"][0]["content"] == [{"type": "text", "text": "See"}, block]


@pytest.mark.parametrize(
    "part",
    [
        MediaPart("audio", "audio/wav", "AAAA"),
        MediaPart("image", "image/tiff", "AAAA"),
        MediaPart("image", "image/png", "AAAA", detail="low"),
        MediaPart("file", "application/zip", "AAAA"),
        MediaPart("file", "text/plain", "%%%"),
        MediaPart("file", "text/plain", b64encode(b"\xff\xfe").decode()),
        MediaPart("image"),
    ],
)
def test_media_it_cannot_take_is_refused_by_its_place(part):
    said = refusal(ChatMessage("user", parts=(TextPart("See"), part)))

    assert said.startswith("messages[0].content[1]")


def test_a_picture_in_a_system_message_is_refused():
    said = refusal(ChatMessage("system", parts=(MediaPart("image", "image/png", PNG),)), USER)

    assert said.startswith("messages[0].content:")


def test_cache_marks_stay_on_their_parts():
    parts = (TextPart("long", CacheMark("1h")), TextPart("short"))
    written = body(
        ChatMessage("system", "longshort", parts=parts), ChatMessage("user", "Hi", cache=CacheMark())
    )

    assert written["system"] == [
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "short"},
    ]
    assert written["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}


# --- tools ------------------------------------------------------------------------------------------------------


def test_tools_keep_schema_strictness_and_cache_mark():
    tools = (Tool("f", "Does f.", SCHEMA, strict=True), Tool("g", cache=CacheMark()))

    assert body(tools=tools)["tools"] == [
        {"name": "f", "description": "Does f.", "input_schema": SCHEMA, "strict": True},
        {
            "name": "g",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("tool", "f"), None, {"type": "tool", "name": "f"}),
        (ToolChoice("none"), False, {"type": "none"}),
    ],
)
def test_tool_choices_have_their_form(choice, parallel, written):
    asked = body(tools=(Tool("f"),), tool_choice=choice, parallel_tool_calls=parallel)

    assert asked.get("tool_choice") == written


# --- reasoning and structure ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasoning", "thinking", "effort"),
    [
        (Reasoning("high"), {"type": "adaptive"}, "high"),
        (Reasoning("minimal"), {"type": "adaptive"}, "low"),
        (
            Reasoning("max", summary="auto"),
            {"type": "adaptive", "display": "summarized"},
            "max",
        ),
        (Reasoning("max", summary="none"), {"type": "adaptive", "display": "omitted"}, "max"),
        (Reasoning("none"), {"type": "disabled"}, None),
        (Reasoning(budget_tokens=0), {"type": "disabled"}, None),
        (Reasoning(budget_tokens=2048), {"type": "enabled", "budget_tokens": 2048}, None),
        (Reasoning("low", budget_tokens=1024), {"type": "enabled", "budget_tokens": 1024}, "low"),
        (Reasoning(), None, None),
    ],
)
def test_reasoning_is_asked_for_by_effort_or_by_budget(reasoning, thinking, effort):
    written = body(reasoning=reasoning, max_tokens=4000)

    assert written.get("thinking") == thinking
    assert written.get("output_config", {}).get("effort") == effort


def test_without_a_limit_a_thinking_budget_leaves_room_for_the_answer():
    assert body(reasoning=Reasoning(budget_tokens=8000))["max_tokens"] == 12096


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"reasoning": Reasoning(budget_tokens=1000)}, "reasoning:"),
        ({"reasoning": Reasoning(budget_tokens=2000), "max_tokens": 2000}, "reasoning:"),
        ({"reasoning": Reasoning("enormous")}, "reasoning_effort:"),
        ({"response_format": ResponseFormat()}, "response_format:"),
        ({"extra": {"web_search_options": {}}, "source_format": "openai.chat"}, "web_search_options:"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(more, field):
    assert refusal(**more).startswith(field)


def test_an_answer_by_schema_is_asked_for_natively():
    wanted = ResponseFormat(SCHEMA, "point", "A point.")

    assert body(response_format=wanted, reasoning=Reasoning("low"))["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {**SCHEMA, "description": "A point."}},
    }


def test_fields_of_its_own_format_pass_through_but_not_over_ours():
    extra = {
        "inference_geo": "eu",
        "metadata": {"user_id": "old"},
        "output_config": {"task_budget": {"type": "tokens", "total": 9}},
        "model": "dear",
        "max_tokens": 10**6,
    }

    written = body(extra=extra, source_format="anthropic.messages", user="u", reasoning=Reasoning("low"))

    assert written["inference_geo"] == "eu"
    assert written["metadata"] == {"user_id": "u"}
    assert written["output_config"] == {"task_budget": {"type": "tokens", "total": 9}, "effort": "low"}
    assert (written["model"], written["max_tokens"]) == ("m", 4096)


def test_what_belongs_to_a_place_of_the_original_is_refused_once_it_is_written_anew():
    place = "messages[0].content[1].citations"

    said = refusal(extra={place: {"enabled": True}}, source_format="anthropic.messages")

    assert said.startswith(f"{place}:")


def test_such_a_place_is_no_hindrance_to_counting():
    place = "messages[0].content[1].citations"
    call = ChatCall("m", (USER,), extra={place: {"enabled": True}}, source_format="anthropic.messages")

    assert set(json.loads(encode_count(call, "claude"))) == {"model", "messages"}


def test_hints_to_another_vendors_caches_are_not_a_reason_to_refuse():
    written = body(
        extra={"prompt_cache_key": "k", "store": False, "service_tier": "auto"}, source_format="openai.chat"
    )

    assert set(written) == {"model", "max_tokens", "messages", "stream"}
