"""How calls become Converse requests."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.bedrock_wire import encode, family_of
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

CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-2-lite-v1:0"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123"
DATA = b64encode(b"bytes").decode()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
USER = ChatMessage("user", "Hi")


def body(
    *messages: ChatMessage, model: str = CLAUDE, family: str | None = None, **more: Any
) -> dict[str, Any]:
    call = ChatCall(model=model, messages=messages or (USER,), **more)
    written: dict[str, Any] = json.loads(
        encode(call, "aws", family=family, beta=("b1",) if more.get("n") else ())
    )
    return written


def refusal(*messages: ChatMessage, **more: Any) -> str:
    with pytest.raises(ProviderBadRequest) as caught:
        body(*messages, **more)
    return caught.value.message


def test_a_plain_call_is_small():
    assert body() == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


def test_every_sampling_setting_has_its_name():
    written = body(max_tokens=9, temperature=0.5, top_p=0.9, stop=("END",), user="u-1")

    assert written["inferenceConfig"] == {
        "maxTokens": 9,
        "temperature": 0.5,
        "topP": 0.9,
        "stopSequences": ["END"],
    }
    assert written["requestMetadata"] == {"user": "u-1"}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (CLAUDE, "anthropic"),
        ("us.amazon.nova-pro-v1:0", "nova"),
        ("mistral.mistral-large-2407-v1:0", "mistral"),
        ("cohere.command-r-plus-v1:0", "cohere"),
        ("openai.gpt-oss-120b-1:0", "openai"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-1-v1:0", "anthropic"),
        (PROFILE, None),
        ("meta.llama3-3-70b-instruct-v1:0", None),
    ],
)
def test_the_family_of_a_model_is_read_from_its_id(model, family):
    assert family_of(model) == family


# --- conversations ----------------------------------------------------------------------------------------------


def test_a_whole_conversation_keeps_its_order_and_marks():
    written = body(
        ChatMessage("system", "Be brief.", cache=CacheMark("1h")),
        ChatMessage(
            "user", "See", parts=(TextPart("See", CacheMark()), MediaPart("image", "image/png", DATA))
        ),
        ChatMessage(
            "assistant",
            "I ask.",
            thinking=(
                Thinking("Hm.", "sig=="),
                Thinking(encrypted="ZW5j"),
                Thinking("unsigned"),
                Thinking("", "gemini:end:eA=="),
            ),
            tool_calls=(ToolCall("t1", "weather", '{"city": "Ghent"}'), ToolCall("t2", "clock", "")),
        ),
        ChatMessage("tool", "12 °C", tool_call_id="t1", name="weather"),
        ChatMessage(
            "tool",
            parts=(TextPart("bad"), MediaPart("file", "application/pdf", DATA, name="a.pdf")),
            tool_call_id="t2",
            is_error=True,
            cache=CacheMark(),
        ),
        ChatMessage("user", "And?"),
        tools=(Tool("weather", "Tells.", SCHEMA, strict=True, cache=CacheMark()), Tool("clock")),
        tool_choice=ToolChoice("required"),
    )

    assert written == {
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "See"},
                    {"cachePoint": {"type": "default"}},
                    {"image": {"format": "png", "source": {"bytes": DATA}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig=="}}},
                    {"reasoningContent": {"redactedContent": "ZW5j"}},
                    {"text": "I ask."},
                    {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ghent"}}},
                    {"toolUse": {"toolUseId": "t2", "name": "clock", "input": {}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "t1", "content": [{"text": "12 °C"}]}},
                    {
                        "toolResult": {
                            "toolUseId": "t2",
                            "status": "error",
                            "content": [
                                {"text": "bad"},
                                {"document": {"format": "pdf", "source": {"bytes": DATA}, "name": "a"}},
                            ],
                        }
                    },
                    {"cachePoint": {"type": "default"}},
                    {"text": "And?"},
                ],
            },
        ],
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "weather",
                        "description": "Tells.",
                        "inputSchema": {"json": SCHEMA},
                        "strict": True,
                    }
                },
                {"cachePoint": {"type": "default"}},
                {
                    "toolSpec": {
                        "name": "clock",
                        "inputSchema": {"json": {"type": "object", "properties": {}}},
                    }
                },
            ],
            "toolChoice": {"any": {}},
        },
    }


def test_names_of_documents_are_made_plain_and_unique():
    parts = tuple(MediaPart("file", "text/markdown", DATA, name=n) for n in ("a_b.md", "a_b.md", None, None))

    content = body(ChatMessage("user", parts=parts))["messages"][0]["content"]

    assert [block["document"]["name"] for block in content] == ["a-b", "a-b (2)", "document", "document (2)"]


def test_an_image_may_lie_in_s3():
    part = MediaPart("image", "image/png", url="s3://bucket/a.png")

    content = body(ChatMessage("user", parts=(part,)))["messages"][0]["content"]

    assert content == [{"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}}]


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice("auto"), {"auto": {}}),
        (ToolChoice("required"), {"any": {}}),
        (ToolChoice("tool", "f"), {"tool": {"name": "f"}}),
    ],
)
def test_tool_choices_have_their_form(choice, written):
    assert body(tools=(Tool("f"),), tool_choice=choice)["toolConfig"]["toolChoice"] == written


def test_tools_that_may_not_be_called_are_not_sent():
    assert "toolConfig" not in body(tools=(Tool("f"),), tool_choice=ToolChoice("none"))


# --- reasoning, structure, families -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "more", "additional", "effort"),
    [
        (CLAUDE, {"top_k": 5}, {"top_k": 5}, None),
        (NOVA, {"top_k": 5}, {"inferenceConfig": {"topK": 5}}, None),
        ("cohere.command-r-v1:0", {"top_k": 5}, {"k": 5}, None),
        (
            CLAUDE,
            {"reasoning": Reasoning(budget_tokens=2000)},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            None,
        ),
        (CLAUDE, {"reasoning": Reasoning("high")}, {"thinking": {"type": "adaptive"}}, "high"),
        (CLAUDE, {"reasoning": Reasoning("none")}, {"thinking": {"type": "disabled"}}, None),
        (
            NOVA,
            {"reasoning": Reasoning("low")},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
            None,
        ),
        (NOVA, {"reasoning": Reasoning("none")}, {"reasoningConfig": {"type": "disabled"}}, None),
        ("openai.gpt-oss-20b-1:0", {"reasoning": Reasoning("low")}, {"reasoning_effort": "low"}, None),
        ("deepseek.v3-v1:0", {"reasoning": Reasoning("low")}, None, "low"),
    ],
)
def test_what_converse_has_no_field_for_goes_by_the_models_family(model, more, additional, effort):
    written = body(model=model, **more)

    assert written.get("additionalModelRequestFields") == additional
    assert written.get("outputConfig", {}).get("effort") == effort


def test_the_family_of_a_profile_is_told_by_the_provider():
    assert body(model=PROFILE, family="anthropic", top_k=5)["additionalModelRequestFields"] == {"top_k": 5}
    assert "family" in (caught_fix(model=PROFILE, top_k=5) or "")


def caught_fix(**more: Any) -> str | None:
    with pytest.raises(ProviderBadRequest) as caught:
        body(**more)
    return caught.value.fix


def test_beta_features_are_for_claude_alone():
    assert body(n=2)["additionalModelRequestFields"] == {"anthropic_beta": ["b1"]}
    assert "additionalModelRequestFields" not in body(n=2, model=NOVA)


def test_without_a_limit_a_thinking_budget_leaves_room_for_the_answer():
    assert body(reasoning=Reasoning(budget_tokens=8000))["inferenceConfig"] == {"maxTokens": 12096}


def test_an_answer_by_schema_is_asked_for_natively():
    written = body(response_format=ResponseFormat(SCHEMA, "point", "A point."))["outputConfig"]["textFormat"]

    definition = written["structure"]["jsonSchema"]
    assert written["type"] == "json_schema"
    assert (json.loads(definition["schema"]), definition["name"], definition["description"]) == (
        SCHEMA,
        "point",
        "A point.",
    )


def test_fields_of_converse_may_be_sent_beside_another_format():
    extra = {
        "additionalModelRequestFields": {"x": 1},
        "requestMetadata": {"team": "a"},
        "prompt_cache_key": "k",
    }

    written = body(extra=extra, source_format="openai.chat", top_k=5, user="u")

    assert written["additionalModelRequestFields"] == {"x": 1, "top_k": 5}
    assert written["requestMetadata"] == {"team": "a", "user": "u"}
    assert "prompt_cache_key" not in written


ASKED = ChatMessage("assistant", tool_calls=(ToolCall("t", "f", "{}"),))


@pytest.mark.parametrize(
    ("messages", "more", "field"),
    [
        ((), {"temperature": 1.5}, "temperature:"),
        ((), {"model": PROFILE, "top_k": 5}, "top_k:"),
        ((), {"model": NOVA, "reasoning": Reasoning(budget_tokens=2000)}, "reasoning:"),
        ((), {"model": PROFILE, "reasoning": Reasoning("none")}, "reasoning_effort:"),
        ((), {"reasoning": Reasoning("enormous")}, "reasoning_effort:"),
        ((), {"reasoning": Reasoning(budget_tokens=10)}, "reasoning:"),
        ((), {"reasoning": Reasoning(budget_tokens=2000), "max_tokens": 2000}, "reasoning:"),
        ((), {"response_format": ResponseFormat()}, "response_format:"),
        ((), {"tools": (Tool("f"),), "parallel_tool_calls": False}, "parallel_tool_calls:"),
        ((), {"user": "ü"}, "user:"),
        ((), {"extra": {"serviceTier": {"type": "priority"}}}, "serviceTier:"),
        ((USER, ASKED, ChatMessage("tool", "x")), {}, "messages[2].tool_call_id:"),
        (
            (USER, ASKED, ChatMessage("tool", "x", tool_call_id="t")),
            {"tools": (Tool("f"),), "tool_choice": ToolChoice("none")},
            "tool_choice:",
        ),
        (
            (USER, ChatMessage("assistant", tool_calls=(ToolCall("t", "f", "{"),))),
            {},
            "messages[1].tool_calls[0].function.arguments:",
        ),
        ((USER, ASKED, ChatMessage("system", "x")), {}, "messages[2]:"),
        ((ChatMessage("user", "Hi", name="Ann"),), {}, "messages[0].name:"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(messages, more, field):
    assert refusal(*messages, **more).startswith(field)


@pytest.mark.parametrize(
    "part",
    [
        MediaPart("image", url="https://example.org/a.png"),
        MediaPart("image", "image/tiff", DATA),
        MediaPart("image", "image/png", DATA, detail="low"),
        MediaPart("file", "application/zip", DATA),
        MediaPart("file", file_id="file_1"),
        MediaPart("audio", "audio/midi", DATA),
    ],
)
def test_media_it_cannot_take_is_refused_by_its_place(part):
    assert refusal(ChatMessage("user", parts=(TextPart("See"), part))).startswith("messages[0].content[1]")


def test_a_picture_in_a_system_message_is_refused():
    said = refusal(ChatMessage("system", parts=(MediaPart("image", "image/png", DATA),)), USER)

    assert said.startswith("messages[0].content:")
