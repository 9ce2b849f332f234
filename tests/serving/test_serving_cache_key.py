"""The cache never gives an answer to a question that differs in what shapes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from serving_asking import ADA

from mainstay.models.types import ChatCall
from mainstay.serving.cache import cache_key
from mainstay.serving.surfaces import SURFACES
from mainstay.serving.types import ChatRequest, SurfaceName

CHAT: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": 2}}}
OTHER_FUNCTION = {"type": "function", "function": {"name": "g", "parameters": {}}}


def _asked(request: ChatRequest) -> tuple[SurfaceName, ChatCall]:
    return request.surface, request.call


def _schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": {"properties": properties}}}


CHAT_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"n": 2},
    {"seed": 1},
    {"seed": 2},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"top_k": 5},
    {"max_tokens": 5},
    {"max_completion_tokens": 5},
    {"stop": ["a"]},
    {"stop": "b"},
    {"user": "u1"},
    {"user": "u2"},
    {"logprobs": True},
    {"logprobs": True, "top_logprobs": 2},
    {"frequency_penalty": 1},
    {"presence_penalty": 1},
    {"logit_bias": {"1": 1}},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "high"},
    {"verbosity": "low"},
    {"metadata": {"a": "b"}},
    {"service_tier": "flex"},
    {"tools": [FUNCTION]},
    {"tools": [FUNCTION, OTHER_FUNCTION]},
    {"tools": [OTHER_FUNCTION, FUNCTION]},
    {"tools": [FUNCTION], "tool_choice": "required"},
    {"tools": [FUNCTION], "parallel_tool_calls": False},
    {"functions": [FUNCTION["function"]]},
    {"response_format": {"type": "json_object"}},
    {"response_format": _schema({"a": {}, "b": {}})},
    {"response_format": _schema({"b": {}, "a": {}})},
    {"messages": [{"role": "developer", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi", "name": "ada"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, IMAGE]}]},
    {"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "hi"}]}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}]},
    {"unknown_knob": 1},
    {"unknown_knob": 2},
)
MESSAGES: Mapping[str, Any] = {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]}
MESSAGES_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"max_tokens": 10},
    {"system": "s"},
    {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
    {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    {"thinking": {"type": "enabled", "budget_tokens": 3000}},
    {"thinking": {"type": "adaptive"}},
    {"output_config": {"effort": "low"}},
    {"stop_sequences": ["x"]},
    {"temperature": 0.1},
    {"top_k": 3},
    {"metadata": {"user_id": "u"}},
    {"tools": [{"name": "f", "input_schema": {"a": 1, "b": 1}}]},
    {"tools": [{"name": "f", "input_schema": {"b": 1, "a": 1}}]},
    {"service_tier": "standard_only"},
    {"unknown_knob": 1},
)
COMPLETIONS: Mapping[str, Any] = {"model": "m", "prompt": "hi"}
COMPLETIONS_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"prompt": "ho"},
    {"n": 2},
    {"seed": 1},
    {"stop": ["a"]},
    {"max_tokens": 3},
    {"user": "u"},
    {"unknown_knob": 1},
    {"unknown_knob": 2},
)
RESPONSES: Mapping[str, Any] = {"model": "m", "input": "hi"}
RESPONSES_VARIANTS: Sequence[Mapping[str, Any]] = (
    {},
    {"input": "ho"},
    {"instructions": "be kind"},
    {"max_output_tokens": 99},
    {"reasoning": {"effort": "low"}},
    {"reasoning": {"effort": "low", "summary": "auto"}},
    {"text": {"verbosity": "low"}},
    {"text": {"format": {"type": "json_object"}}},
    {"include": ["message.output_text.logprobs"]},
    {"top_logprobs": 3},
    {"temperature": 0.3},
    {"tools": [{"type": "function", "name": "f", "parameters": {}}]},
    {"user": "u"},
    {"safety_identifier": "s"},
)


@pytest.mark.parametrize(
    ("surface", "base", "variants"),
    [
        ("chat", CHAT, CHAT_VARIANTS),
        ("messages", MESSAGES, MESSAGES_VARIANTS),
        ("completions", COMPLETIONS, COMPLETIONS_VARIANTS),
        ("responses", RESPONSES, RESPONSES_VARIANTS),
    ],
)
@pytest.mark.parametrize("changed_by_the_guard", [False, True])
def test_no_two_requests_that_differ_in_what_shapes_an_answer_share_one(
    surface: str, base: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], changed_by_the_guard: bool
) -> None:
    keys: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        if changed_by_the_guard and variant.keys() & {"functions", "max_completion_tokens", "metadata"}:
            continue  # without the client's body, these are the same call as another
        request = SURFACES[surface].read({**base, **variant})  # type: ignore[index]
        if changed_by_the_guard:
            request = replace(request, call=replace(request.call, source=None))
        key = cache_key(*_asked(request), ADA, "tenant", "served")
        assert key not in keys, (variant, keys.get(key))
        keys[key] = variant


def test_the_cache_key_tells_callers_releases_and_settings_apart() -> None:
    chat, messages = SURFACES["chat"].read(CHAT), SURFACES["messages"].read(MESSAGES)
    warm = SURFACES["chat"].read({**CHAT, "temperature": 1})
    masked = replace(chat, call=replace(chat.call, source=None))
    others = replace(ADA, groups=frozenset({"crew", "officers"}))

    keys = {
        cache_key(*_asked(chat), ADA, "t1", "s1"),
        cache_key(*_asked(messages), ADA, "t1", "s1"),
        cache_key(*_asked(warm), ADA, "t1", "s1"),
        cache_key(*_asked(masked), ADA, "t1", "s1"),
        cache_key(*_asked(chat), ADA, "t2", "s1"),
        cache_key(*_asked(chat), ADA, "t1", "s2"),
        cache_key(*_asked(chat), others, "t1", "s1"),
    }

    assert len(keys) == 7


def test_how_an_answer_is_delivered_does_not_tell_requests_apart() -> None:
    whole = SURFACES["chat"].read(CHAT)
    stream = SURFACES["chat"].read({**CHAT, "stream": True, "stream_options": {"include_usage": True}})

    assert cache_key(*_asked(whole), ADA, "t", "s") == cache_key(*_asked(stream), ADA, "t", "s")
