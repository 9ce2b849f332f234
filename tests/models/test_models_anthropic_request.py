"""How the settings, tools and structure of a call become an Anthropic request."""

from __future__ import annotations

import json

import pytest
from models_anthropic_written import SCHEMA, USER, body, refusal

from mainstay.models import ChatCall
from mainstay.models.providers.anthropic_wire import encode_count
from mainstay.models.types import CacheMark, Reasoning, ResponseFormat, Tool, ToolChoice


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
