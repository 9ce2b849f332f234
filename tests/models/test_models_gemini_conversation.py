"""What a conversation becomes in the Gemini API's wire format: turns, results of tools, signatures, media."""

from __future__ import annotations

import json

import pytest
from models_gemini_written import ASKED, PNG, body, call, contents, refusal

from mainstay.models import ChatMessage
from mainstay.models.providers.gemini_signatures import call_place, signed
from mainstay.models.types import MediaPart, TextPart, Thinking, ToolCall
from mainstay.serving.surfaces import SURFACES

# --- conversations ----------------------------------------------------------------------------------------------


def test_system_messages_open_a_conversation_only():
    system, developer = ChatMessage("system", "Be brief."), ChatMessage("developer", "Be kind.")
    user = ChatMessage("user", "Hi")

    assert body(call(system, developer, user))["systemInstruction"] == {
        "parts": [{"text": "Be brief."}, {"text": "Be kind."}]
    }
    assert refusal(call(user, system)).startswith("messages[1]: ")


def test_results_of_a_turns_calls_stand_together_apart_from_what_the_user_says_next():
    written = contents(
        ChatMessage("user", "Hi"),
        ChatMessage("assistant", tool_calls=(ASKED, ToolCall("fc_2", "clock", ""))),
        ChatMessage("tool", "Rain", tool_call_id="fc_1"),
        ChatMessage("tool", "Broken", tool_call_id="fc_2", is_error=True),
        ChatMessage("user", "And now?"),
        ChatMessage("user", "Well?"),
    )

    assert written == [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {
            "role": "model",
            "parts": [
                {"functionCall": {"id": "fc_1", "name": "weather", "args": {"city": "Ghent"}}},
                {"functionCall": {"id": "fc_2", "name": "clock", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "fc_1", "name": "weather", "response": {"output": "Rain"}}},
                {"functionResponse": {"id": "fc_2", "name": "clock", "response": {"error": "Broken"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And now?"}, {"text": "Well?"}]},
    ]


def test_a_result_without_its_call_needs_a_name():
    assert "tool_call_id" in refusal(call(ChatMessage("tool", "Rain", tool_call_id="x")))
    named = contents(ChatMessage("tool", "Rain", tool_call_id="x", name="weather"))
    assert named[0]["parts"][0]["functionResponse"]["name"] == "weather"


def test_a_result_may_be_an_image():
    message = ChatMessage("tool", "See", (TextPart("See"), PNG), tool_call_id="x", name="weather")

    assert contents(message)[0]["parts"][0]["functionResponse"] == {
        "id": "x",
        "name": "weather",
        "response": {"output": "See"},
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "cG5n"}}],
    }


def test_vertex_goes_by_names_instead_of_ids():
    written = contents(
        ChatMessage("assistant", tool_calls=(ASKED,)),
        ChatMessage("tool", "Rain", tool_call_id="fc_1"),
        vertex=True,
    )

    assert "id" not in json.dumps(written)


@pytest.mark.parametrize("arguments", ["{oops", "[1]"])
def test_arguments_that_are_no_object_are_refused(arguments):
    said = refusal(call(ChatMessage("assistant", tool_calls=(ToolCall("a", "f", arguments),))))

    assert said.startswith("messages[0].tool_calls[0].function.arguments: ")


# --- signatures -------------------------------------------------------------------------------------------------


def test_every_signature_goes_back_to_the_part_it_came_with():
    second = ToolCall("fc:2", "clock", "{}")
    thinking = (
        signed("thought", "dA==", "Hm."),
        Thinking("A summary nobody signed"),
        signed("text", "eA=="),
        signed(call_place("fc_1"), "Yy8r"),
        signed(call_place("fc:2"), "ZA=="),
    )

    written = contents(ChatMessage("assistant", "I ask.", tool_calls=(ASKED, second), thinking=thinking))

    assert written[0]["parts"] == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "dA=="},
        {"text": "I ask.", "thoughtSignature": "eA=="},
        {
            "functionCall": {"id": "fc_1", "name": "weather", "args": {"city": "Ghent"}},
            "thoughtSignature": "Yy8r",
        },
        {"functionCall": {"id": "fc:2", "name": "clock", "args": {}}, "thoughtSignature": "ZA=="},
    ]


def test_a_signature_of_an_empty_part_gets_one():
    written = contents(ChatMessage("assistant", "Hi", thinking=(signed("end", "ZQ=="),)))

    assert written[0]["parts"] == [{"text": "Hi"}, {"text": "", "thoughtSignature": "ZQ=="}]


def test_thinking_of_other_vendors_is_left_out():
    foreign = (Thinking("Hm", "sig=="), Thinking(encrypted="abc"), Thinking("Hm"))

    assert contents(ChatMessage("assistant", "Hi", thinking=foreign))[0]["parts"] == [{"text": "Hi"}]


def test_signatures_come_through_the_formats_of_clients():
    """A client of either format sends back the blocks it was given."""
    at_end, at_call = signed("end", "ZQ==").signature, signed(call_place("fc_1"), "Yy8r").signature
    blocks = [{"type": "thinking", "thinking": "", "signature": signature} for signature in (at_end, at_call)]
    function = {"name": "weather", "arguments": '{"city": "Ghent"}'}
    openai = {
        "role": "assistant",
        "content": "I ask.",
        "thinking_blocks": blocks,
        "tool_calls": [{"id": "fc_1", "type": "function", "function": function}],
    }
    use = {"type": "tool_use", "id": "fc_1", "name": "weather", "input": {"city": "Ghent"}}
    anthropic = {"role": "assistant", "content": [{"type": "text", "text": "I ask."}, *blocks, use]}
    user = {"role": "user", "content": "Hi"}

    chat = SURFACES["chat"].read({"model": "m", "messages": [user, openai]}).call
    messages = SURFACES["messages"].read({"model": "m", "max_tokens": 9, "messages": [user, anthropic]}).call

    for read in (chat, messages):
        assert contents(*read.messages)[1]["parts"] == [
            {"text": "I ask."},
            {"text": "", "thoughtSignature": "ZQ=="},
            {
                "functionCall": {"id": "fc_1", "name": "weather", "args": {"city": "Ghent"}},
                "thoughtSignature": "Yy8r",
            },
        ]


def test_the_first_call_of_a_step_that_nobody_signed_says_so_to_models_that_check():
    history = (
        ChatMessage("user", "Hi"),
        ChatMessage("assistant", tool_calls=(ASKED, ToolCall("b", "clock", "{}"))),
        ChatMessage("tool", "Rain", tool_call_id="fc_1"),
    )

    checked = contents(*history, model="gemini-3-pro-preview")[1]["parts"]

    assert [part.get("thoughtSignature") for part in checked] == ["skip_thought_signature_validator", None]
    assert "thoughtSignature" not in json.dumps(contents(*history))


# --- media ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (PNG, {"inlineData": {"mimeType": "image/png", "data": "cG5n"}}),
        (
            MediaPart("image", url="data:image/png;base64,cG5n"),
            {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
        ),
        (
            MediaPart("audio", media_type="audio/wav", data="d2F2"),
            {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}},
        ),
        (
            MediaPart("file", media_type="application/pdf", data="cGRm", name="a.pdf"),
            {"inlineData": {"mimeType": "application/pdf", "data": "cGRm"}},
        ),
        (
            MediaPart("image", url="https://host/a.jpg?x=1"),
            {"fileData": {"fileUri": "https://host/a.jpg?x=1", "mimeType": "image/jpeg"}},
        ),
        (MediaPart("file", url="gs://bucket/a"), {"fileData": {"fileUri": "gs://bucket/a"}}),
        (
            MediaPart("file", file_id="files/abc", media_type="text/plain"),
            {
                "fileData": {
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
                    "mimeType": "text/plain",
                }
            },
        ),
    ],
)
def test_media_are_sent_inline_or_by_reference(part, written):
    assert contents(ChatMessage("user", "", (part,)))[0]["parts"] == [written]


def test_vertex_takes_a_files_name():
    part = MediaPart("file", media_type="application/pdf", data="cGRm", name="a.pdf")

    written = contents(ChatMessage("user", "", (part,)), vertex=True)

    assert written[0]["parts"][0]["inlineData"]["displayName"] == "a.pdf"


@pytest.mark.parametrize(
    ("part", "vertex"),
    [
        (MediaPart("file", data="cGRm"), False),
        (MediaPart("file", file_id="file-openai"), False),
        (MediaPart("file", url="gs://bucket/a"), True),
    ],
)
def test_media_that_cannot_be_told_are_refused(part, vertex):
    said = refusal(call(ChatMessage("user", "", (TextPart("See"), part))), vertex=vertex)

    assert said.startswith("messages[0].content[1]: ")


def test_low_detail_holds_for_all_images_or_none():
    low = MediaPart("image", media_type="image/png", data="cG5n", detail="low")

    written = body(call(ChatMessage("user", "", (low, low))))

    assert written["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
    assert refusal(call(ChatMessage("user", "", (low, PNG)))).startswith("messages: ")
