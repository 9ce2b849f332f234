"""Anthropic's requests into the normal form: what is read, and how mistakes are named."""

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
from mainstay.serving.surfaces.messages import MessagesSurface

SURFACE = MessagesSurface()
USER = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Now.", "input_schema": SCHEMA}
MARK = {"type": "ephemeral"}
DEEP = deep(150)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 10, "messages": [USER], **fields}


def read(role: str, content: Any) -> tuple[ChatMessage, ...]:
    return SURFACE.read(body(messages=[{"role": role, "content": content}])).messages


def test_the_usual_request_is_read_and_kept_as_its_source() -> None:
    asked = body(
        system="Be brief.",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        stream=True,
        metadata={"user_id": "u1"},
        service_tier="auto",
    )
    request = SURFACE.read(asked)
    call = request.call
    assert (request.model, request.stream, request.surface) == ("m", True, "messages")
    assert (request.user, request.metadata) == ("u1", {"user_id": "u1"})
    assert call.messages == (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))
    assert (call.max_tokens, call.temperature, call.top_p, call.top_k, call.stop) == (
        10,
        0.5,
        0.9,
        5,
        ("END",),
    )
    assert call.extra == {"service_tier": "auto"}
    assert (call.source, call.source_format) == (asked, "anthropic.messages")


def test_the_place_of_a_cache_mark_is_kept() -> None:
    system = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}]
    call = SURFACE.read(body(system=system, tools=[{**WEATHER, "cache_control": {**MARK, "ttl": "1h"}}])).call
    assert call.messages[0] == ChatMessage(
        "system", "ab", parts=(TextPart("a"), TextPart("b", CacheMark("5m")))
    )
    assert call.tools == (Tool("weather", "Now.", SCHEMA, None, CacheMark("1h")),)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            MediaPart("image", "image/png", "AA=="),
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}, "cache_control": MARK},
            MediaPart("image", url="https://x/a.png", cache=CacheMark()),
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f1"}},
            MediaPart("image", file_id="f1"),
        ),
        (
            {
                "type": "document",
                "title": "Report",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
            },
            MediaPart("file", "application/pdf", "AA==", name="Report"),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi"}},
            MediaPart("file", "text/plain", "SGk="),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
            MediaPart("file", "application/pdf", url="https://x/a.pdf"),
        ),
    ],
)
def test_images_and_documents_are_read(block: dict[str, Any], expected: MediaPart) -> None:
    (message,) = read("user", [{"type": "text", "text": "See:"}, block])
    assert message.parts == (TextPart("See:"), expected)


def test_results_of_tools_become_messages_of_their_own_in_order() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
    content = [
        {"type": "tool_result", "tool_use_id": "a", "content": "Sunny.", "cache_control": MARK},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "is_error": True,
            "content": [{"type": "text", "text": "Map:"}, image],
        },
        {"type": "tool_result", "tool_use_id": "c"},
        {"type": "text", "text": "Go on."},
    ]
    assert read("user", content) == (
        ChatMessage("tool", "Sunny.", tool_call_id="a", cache=CacheMark()),
        ChatMessage(
            "tool",
            "Map:",
            parts=(TextPart("Map:"), MediaPart("image", url="https://x/a.png")),
            tool_call_id="b",
            is_error=True,
        ),
        ChatMessage("tool", "", tool_call_id="c"),
        ChatMessage("user", "Go on."),
    )


def test_an_assistants_turn_keeps_its_thinking_and_calls() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Bern"}},
    ]
    assert read("assistant", content) == (
        ChatMessage(
            "assistant",
            "Let me see.",
            tool_calls=(ToolCall("a", "weather", '{"city":"Bern"}'),),
            thinking=(Thinking("Hm.", "s"), Thinking(encrypted="x")),
        ),
    )


def test_thinking_after_text_keeps_its_place() -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    text = {"type": "text", "text": "a"}
    assert [m.content for m in read("assistant", [thinking, text, thinking, text])] == ["a", "a"]


@pytest.mark.parametrize(
    ("given", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "weather"}, ToolChoice("tool", "weather"), None),
        ({"type": "none"}, ToolChoice("none"), None),
    ],
)
def test_the_choice_of_a_tool_is_read(given: Any, expected: ToolChoice, parallel: bool | None) -> None:
    call = SURFACE.read(body(tools=[WEATHER], tool_choice=given)).call
    assert (call.tool_choice, call.parallel_tool_calls) == (expected, parallel)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(budget_tokens=2048)),
        ({"thinking": {"type": "disabled"}}, Reasoning(budget_tokens=0)),
        ({"thinking": {"type": "adaptive"}}, Reasoning("high")),
        (
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "low"},
            },
            Reasoning("low", summary="auto"),
        ),
        ({"output_config": {"effort": "medium"}}, Reasoning("medium")),
        ({}, None),
    ],
)
def test_thinking_is_read(fields: dict[str, Any], expected: Reasoning | None) -> None:
    assert SURFACE.read(body(**fields)).call.reasoning == expected


def test_structured_output_is_read_in_both_its_places() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    call = SURFACE.read(body(output_config={"format": form, "task_budget": {"total": 5}})).call
    assert call.response_format == ResponseFormat(SCHEMA)
    assert call.extra == {"output_config": {"task_budget": {"total": 5}}}
    assert SURFACE.read(body(output_format=form)).call.response_format == ResponseFormat(SCHEMA)


def test_what_only_anthropic_can_do_is_kept_under_its_path() -> None:
    document = {
        "type": "document",
        "source": {"type": "url", "url": "https://x/a.pdf"},
        "citations": {"enabled": True},
    }
    request = SURFACE.read(
        body(
            messages=[{"role": "user", "content": [document]}],
            tools=[{**WEATHER, "input_examples": [{"city": "Bern"}]}],
            context_management={"edits": []},
        )
    )
    assert set(request.call.extra) == {
        "messages[0].content[0].citations",
        "tools[0].input_examples",
        "context_management",
    }


def test_tokens_may_be_counted_without_a_limit_on_the_answer() -> None:
    assert SURFACE.read_count({"model": "m", "messages": [USER]}).call.max_tokens is None


def test_a_system_message_may_come_later() -> None:
    request = SURFACE.read(body(messages=[USER, {"role": "system", "content": "Be brief now."}]))
    assert request.messages[1] == ChatMessage("system", "Be brief now.")


def content(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


BLOCK = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stream": 1}, "stream"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"system": False}, "system"),
        ({"system": 0}, "system"),
        ({"system": {}}, "system"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"container": "c1"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        (content({"type": "search_result"}), f"{BLOCK}.type"),
        (content({"type": "tool_use"}), f"{BLOCK}.type"),
        (content({"type": "server_tool_use"}, role="assistant"), f"{BLOCK}.type"),
        (content({"type": "text"}), f"{BLOCK}.text"),
        (content({"type": "text", "text": "x", "odd": DEEP}), f"{BLOCK}.odd"),
        (content({"type": "text", "text": "x", "cache_control": {"type": "x"}}), f"{BLOCK}.cache_control"),
        (content({"type": "image"}), f"{BLOCK}.source"),
        (content({"type": "image", "source": {"type": "ftp"}}), f"{BLOCK}.source.type"),
        (content({"type": "image", "source": {"type": "base64"}}), f"{BLOCK}.source.media_type"),
        (content({"type": "document", "source": {"type": "content"}}), f"{BLOCK}.source.type"),
        (content({"type": "tool_result"}), f"{BLOCK}.tool_use_id"),
        (
            content({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference"}]}),
            f"{BLOCK}.content[0].type",
        ),
        (content({"type": "tool_use", "name": "f"}, role="assistant"), f"{BLOCK}.id"),
        (content({"type": "tool_use", "id": "a", "name": "f"}, role="assistant"), f"{BLOCK}.input"),
        (
            content({"type": "tool_use", "id": "a", "name": "f", "input": {"x": DEEP}}, role="assistant"),
            f"{BLOCK}.input",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
        ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"odd": DEEP}, "odd"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        SURFACE.read(body(**fields))
    reply = reply_to(caught.value)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert SURFACE.error_body(reply)["mainstay"]["param"] == param
