"""Legacy completions: a prompt is asked as a chat and answered as text."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from surface_kit import IDS, TRACE, USAGE, answers, events, final, openai_client, started, streamed

from mainstay.models.types import ChatMessage, Delta
from mainstay.serving.errors import BadField, UpstreamFailed, reply_to
from mainstay.serving.surfaces.completions import CompletionsSurface

SURFACE = CompletionsSurface()
ASKED: Any = {"model": "acme/large", "prompt": "Once upon"}
TEXT = [Delta(text="a ", model="large-1"), Delta(text="time"), Delta(finish_reason="length")]


def rendered(deltas: list[Delta], **fields: Any) -> bytes:
    return streamed(SURFACE.stream(SURFACE.read({**ASKED, **fields}), IDS), deltas, final(deltas))


def test_a_prompt_becomes_a_users_message() -> None:
    request = SURFACE.read(
        {**ASKED, "prompt": ["Once upon"], "max_tokens": 5, "n": 2, "stop": "x", "min_p": 1}
    )
    call = request.call
    assert (request.model, request.surface) == ("acme/large", "completions")
    assert call.messages == (ChatMessage("user", "Once upon"),)
    assert (call.max_tokens, call.n, call.stop, call.extra) == (5, 2, ("x",), {"min_p": 1})
    assert call.source is None


def test_values_that_ask_for_nothing_are_accepted() -> None:
    neutral = {"suffix": "", "echo": False, "best_of": 1, "logprobs": 0, "logit_bias": {}}
    call = SURFACE.read({**ASKED, **neutral}).call
    assert (call.extra, call.logit_bias, call.logprobs) == ({}, None, False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 5}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"fallbacks": ["a"]}, "fallbacks"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        SURFACE.read({**ASKED, **fields})
    assert caught.value.detail["param"] == param


def test_several_prompts_are_told_how_to_be_sent() -> None:
    with pytest.raises(BadField, match="one request for each"):
        SURFACE.read({**ASKED, "prompt": ["a", "b"]})


def test_a_whole_answer_has_the_legacy_form() -> None:
    body = json.loads(SURFACE.whole(final([*TEXT, Delta(usage=USAGE)]), SURFACE.read(ASKED), IDS))
    assert body.pop("mainstay")["trace_id"] == TRACE
    assert body.pop("usage")["total_tokens"] == 42
    assert body == {
        "id": f"cmpl-{TRACE}",
        "object": "text_completion",
        "created": 1_790_000_000,
        "model": "large-1",
        "choices": [{"text": "a time", "index": 0, "logprobs": None, "finish_reason": "length"}],
    }


def test_a_stream_is_read_by_the_sdk() -> None:
    stream = rendered(TEXT, stream_options={"include_usage": True})
    chunks = list(openai_client(stream).completions.create(**ASKED, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "a time"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert events(stream)[-1] == "[DONE]"
    assert events(stream)[-3]["mainstay"]["trace_id"] == TRACE


def test_a_failure_midway_raises_in_the_sdk() -> None:
    renderer = SURFACE.stream(SURFACE.read(ASKED), IDS)
    renderer.start(started())
    stream = renderer.delta(TEXT[0]) + renderer.error(reply_to(UpstreamFailed("The provider hung up.")))
    assert b"[DONE]" not in stream
    with pytest.raises(openai.APIError, match="hung up"):
        list(openai_client(stream).completions.create(**ASKED, stream=True))


@settings(max_examples=30, deadline=None)
@given(answers())
def test_a_streams_text_is_the_whole_answers(deltas: list[Delta]) -> None:
    whole = json.loads(SURFACE.whole(final(deltas), SURFACE.read(ASKED), IDS))
    chunks = events(rendered(deltas))[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_providers_chunks_of_a_chat_are_never_relayed() -> None:
    relayed = [Delta(text="a", raw=b'{"object":"chat.completion.chunk"}'), Delta(finish_reason="stop")]
    assert events(rendered(relayed))[0]["object"] == "text_completion"
    body = SURFACE.whole(final(relayed, raw=b"{}"), SURFACE.read(ASKED), IDS)
    assert json.loads(body)["object"] == "text_completion"
