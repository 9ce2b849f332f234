"""How conversations become Anthropic's turns: system messages, tools' results, thinking, media, cache marks."""

from __future__ import annotations

from base64 import b64encode

import pytest
from models_anthropic_written import PDF, PNG, USER, body, refusal

from mainstay.models import ChatMessage
from mainstay.models.types import CacheMark, MediaPart, TextPart, Thinking, ToolCall

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
