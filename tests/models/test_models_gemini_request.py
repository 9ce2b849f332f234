"""What the settings, tools and structure of a call become in the Gemini API's wire format, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from models_gemini_written import SCHEMA, WEATHER, body, call, config, refusal

from mainstay.models.types import Reasoning, ResponseFormat, Tool, ToolChoice

# --- settings ---------------------------------------------------------------------------------------------------


def test_a_plain_call_says_nothing_more_than_its_contents():
    assert body(call()) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_sampling_has_its_own_names():
    written = config(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=("a", "b"),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        n=2,
        logprobs=True,
        top_logprobs=3,
    )

    assert written == {
        "maxOutputTokens": 9,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "stopSequences": ["a", "b"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
    }


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"stop": tuple("abcdef")}, "stop"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"tools": (WEATHER,), "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"reasoning": Reasoning(effort="xhigh")}, "reasoning_effort"),
        ({"extra": {"min_p": 0.1}}, "min_p"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(more, field):
    assert refusal(call(**more)).startswith(f"{field}: gemini")


def test_its_own_fields_pass():
    own = {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}], "store": False}

    assert body(call(extra=own))["safetySettings"] == own["safetySettings"]
    assert "store" not in body(call(extra=own))


@pytest.mark.parametrize(
    ("model", "reasoning", "thinking"),
    [
        ("gemini-2.5-flash", Reasoning(effort="low"), {"thinkingBudget": 1024}),
        ("gemini-2.5-flash", Reasoning(effort="high"), {"thinkingBudget": 24_576}),
        ("models/gemini-2.5-pro", Reasoning(effort="medium"), {"thinkingBudget": 8192}),
        ("gemini-3-pro-preview", Reasoning(effort="low"), {"thinkingLevel": "LOW"}),
        ("gemini-4-argon", Reasoning(effort="minimal"), {"thinkingLevel": "MINIMAL"}),
        ("gemini-2.5-flash", Reasoning(effort="none"), {"thinkingBudget": 0}),
        ("gemini-2.5-flash", Reasoning(budget_tokens=0), {"thinkingBudget": 0}),
        (
            "gemini-2.5-flash",
            Reasoning(effort="high", budget_tokens=99),
            {"includeThoughts": True, "thinkingBudget": 99},
        ),
        ("gemini-2.5-flash", Reasoning(budget_tokens=99, summary="none"), {"thinkingBudget": 99}),
        (
            "gemini-3-pro-preview",
            Reasoning(effort="high", summary="auto"),
            {"includeThoughts": True, "thinkingLevel": "HIGH"},
        ),
        ("gemini-3-pro-preview", Reasoning(summary="auto"), {"includeThoughts": True}),
    ],
)
def test_reasoning_is_a_level_or_a_budget_as_the_model_knows_it(model, reasoning, thinking):
    written = body(call(model=model, reasoning=reasoning))

    assert written["generationConfig"] == {"thinkingConfig": thinking}


def test_reasoning_that_asks_for_nothing_is_left_out():
    assert config(reasoning=Reasoning()) == {}


# --- structured output ------------------------------------------------------------------------------------------


def test_structured_output_is_a_json_schema_or_any_json():
    assert config(response_format=ResponseFormat(SCHEMA, description="A place")) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {**SCHEMA, "description": "A place"},
    }
    assert config(response_format=ResponseFormat()) == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        ({"type": "string", "pattern": "a"}, "", "pattern"),
        ({"properties": {"a": {"items": {"minLength": 1}}}}, ".properties.a.items", "minLength"),
        ({"$defs": {"A": {"allOf": []}}}, ".$defs.A", "allOf"),
        ({"anyOf": [{}, {"not": {}}]}, ".anyOf[1]", "not"),
        ({"prefixItems": [{"const": 1}]}, ".prefixItems[0]", "const"),
        ({"additionalProperties": {"multipleOf": 2}}, ".additionalProperties", "multipleOf"),
    ],
)
def test_a_keyword_that_would_be_ignored_is_refused_with_its_place(schema, path, keyword):
    said = refusal(call(response_format=ResponseFormat(schema)))

    assert said.startswith(f"response_format{path}: ")
    assert repr(keyword) in said


def test_keywords_that_only_inform_and_properties_of_any_name_pass():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "pattern": {"type": ["string", "null"], "default": None},
            "enum": {"$ref": "#/$defs/A"},
        },
        "additionalProperties": False,
        "$defs": {"A": {"enum": ["a"]}},
    }

    assert config(response_format=ResponseFormat(schema))["responseJsonSchema"] == schema


def test_a_schema_nested_beyond_any_stack_is_still_looked_through():
    schema: dict[str, Any] = {"pattern": "a"}
    for _ in range(5000):
        schema = {"items": schema}

    assert "'pattern'" in refusal(call(response_format=ResponseFormat(schema)))


# --- tools ------------------------------------------------------------------------------------------------------


def test_tools_are_declared_with_their_json_schema():
    written = body(call(tools=(WEATHER, Tool("clock"))))

    assert written["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Says it", "parametersJsonSchema": SCHEMA},
                {"name": "clock"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (None, {"mode": "AUTO"}),
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("tool", "weather"), {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_every_choice_of_tools_has_its_mode(choice, calling):
    assert body(call(tools=(WEATHER,), tool_choice=choice))["toolConfig"] == {
        "functionCallingConfig": calling
    }


def test_a_strict_tool_is_validated():
    strict = Tool("weather", None, SCHEMA, strict=True)

    assert body(call(tools=(strict,)))["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
