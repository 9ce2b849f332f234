"""Ceilings and estimates of tokens, without a tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.models import ChatCall, ChatMessage, call_token_ceiling, estimate_usage, message_token_ceiling
from mainstay.models.tokens import (
    FILE_TOKENS,
    IMAGE_TOKENS,
    LOW_DETAIL_IMAGE_TOKENS,
    media_token_ceiling,
    token_ceiling,
    token_estimate,
)
from mainstay.models.types import MediaPart, ResponseFormat, TextPart, Thinking, Tool, ToolCall

BASE = message_token_ceiling((ChatMessage("user"),))


def ceiling(message: ChatMessage) -> int:
    return message_token_ceiling((message,)) - BASE


@given(st.text(max_size=300))
def test_the_ceiling_is_the_length_in_bytes(text):
    assert token_ceiling(text) == len(text.encode("utf-8", errors="replace"))


def test_a_long_text_is_counted_in_pieces():
    text = "é" * 70_000 + "a" * 70_000

    assert token_ceiling(text) == 210_000


@given(st.text(max_size=300))
def test_an_estimate_is_below_the_ceiling(text):
    assert 0 <= token_estimate(text) <= token_ceiling(text)


def test_parts_are_counted_instead_of_their_joined_text():
    message = ChatMessage("user", "ab", parts=(TextPart("a"), TextPart("b")))

    assert ceiling(message) == 2


def test_calls_of_tools_names_and_thinking_are_counted():
    message = ChatMessage(
        "assistant",
        "hi",
        tool_calls=(ToolCall("c", "clock", '{"zone": "CET"}'),),
        name="ann",
        thinking=(Thinking("hmm", encrypted="abcd"),),
    )

    assert ceiling(message) >= 2 + 5 + 15 + 3 + 3 + 4


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (MediaPart("image", data="x" * 1_000_000), IMAGE_TOKENS),
        (MediaPart("image", url="https://e.org/a.png", detail="low"), LOW_DETAIL_IMAGE_TOKENS),
        (MediaPart("file", data="x" * 1_000_000), 1_000_000),
        (MediaPart("file", data="x"), FILE_TOKENS),
        (MediaPart("file", file_id="f"), FILE_TOKENS),
        (MediaPart("audio", data="x" * 100_000), 100_000),
    ],
)
def test_media_have_a_stated_bound(part, tokens):
    assert media_token_ceiling(part) == tokens
    assert ceiling(ChatMessage("user", parts=(part,))) == tokens


def test_tools_and_the_schema_of_the_answer_are_part_of_the_prompt():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    bare = ChatCall("m", (ChatMessage("user", "Hi"),))
    full = ChatCall(
        "m",
        bare.messages,
        tools=(Tool("weather", "Tells the weather.", schema),),
        response_format=ResponseFormat(schema),
    )

    assert call_token_ceiling(bare) == message_token_ceiling(bare.messages)
    assert call_token_ceiling(full) - call_token_ceiling(bare) >= 2 * len(str(schema).replace(" ", ""))
    assert estimate_usage(full, "").input_tokens > estimate_usage(bare, "").input_tokens
