"""Reasoning goes round: what a provider signed comes back to it unchanged, whichever API carried it, and what is
held back or masked in it is so wherever it is said again."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_clients import ask
from gateway_matrix import CALL
from gateway_said import SIGNATURE, Said, Vendor
from gateway_stage import Stage
from gateway_wishes import WEATHER, Wish

THOUGHT = "The city is Tórshavn; ask for its weather."
CALLS = Said("", thought=THOUGHT, calls=(CALL,), finish="tool_calls")
SIGNING = ("anthropic", "bedrock", "gemini")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", ["chat", "responses", "messages"])
@pytest.mark.parametrize("name", SIGNING)
def test_signed_thinking_comes_back_to_its_vendor(stage: Stage, name: str, surface: str, streamed: bool):
    vendor = stage.vendors[name]
    vendor.plays(CALLS, Said("It rains."))

    said = _LOOPS[surface](stage, vendor, streamed)

    heard = vendor.heard()
    assert said == "It rains."
    assert heard.thoughts == ((THOUGHT, SIGNATURE),)
    assert heard.calls == (CALL,)
    assert heard.results == (("call_1", "rain"),)


def _chat(stage: Stage, vendor: Vendor, streamed: bool) -> str:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    common: Any = {"model": vendor.model, "tools": tools, "reasoning_effort": "low", "max_tokens": 500}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    if streamed:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None,
            "thinking_blocks": [],
            "tool_calls": [],
        }
        for chunk in stage.openai.chat.completions.create(messages=messages, stream=True, **common):
            for choice in chunk.choices:
                _gather(message, choice.delta.to_dict())
    else:
        whole = stage.openai.chat.completions.create(messages=messages, **common)
        message = whole.choices[0].message.to_dict()
    messages += [message, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    second = stage.openai.chat.completions.create(messages=messages, **common)
    return second.choices[0].message.content or ""


def _gather(message: dict[str, Any], delta: dict[str, Any]) -> None:
    message["thinking_blocks"] += delta.get("thinking_blocks") or []
    for piece in delta.get("tool_calls") or []:
        if piece.get("id"):
            message["tool_calls"].append({**piece, "function": dict(piece["function"])})
        else:
            function = message["tool_calls"][piece["index"]]["function"]
            function["arguments"] += piece["function"]["arguments"]


def _responses(stage: Stage, vendor: Vendor, streamed: bool) -> str:
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": None}]
    common: Any = {
        "model": vendor.model,
        "tools": tools,
        "store": False,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
    }
    items: list[Any] = [{"role": "user", "content": "Weather?"}]
    if streamed:
        events = list(stage.openai.responses.create(input=items, stream=True, **common))
        first = events[-1].response
    else:
        first = stage.openai.responses.create(input=items, **common)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    items += [*(item.to_dict() for item in first.output), output]
    return stage.openai.responses.create(input=items, **common).output_text


def _messages(stage: Stage, vendor: Vendor, streamed: bool) -> str:
    common: Any = {
        "model": vendor.model,
        "max_tokens": 2000,
        "tools": [{"name": "weather", "input_schema": WEATHER}],
        "thinking": {"type": "adaptive"},
    }
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    if streamed:
        with stage.anthropic.messages.stream(messages=messages, **common) as stream:
            first: Any = stream.get_final_message()
    else:
        first = stage.anthropic.messages.create(messages=messages, **common)
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = stage.anthropic.messages.create(messages=messages, **common)
    return "".join(block.text for block in second.content if block.type == "text")


_LOOPS = {"chat": _chat, "responses": _responses, "messages": _messages}


SECRET = "AKIAIOSFODNN7EXAMPLE"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", ["chat", "responses", "messages"])
@pytest.mark.parametrize("name", [*SIGNING, "openai-like", "ollama"])
def test_a_secret_is_masked_in_thinking_too(stage: Stage, name: str, surface: Any, streamed: bool):
    vendor = stage.vendors[name]
    vendor.plays(Said("It is safe.", thought=f"The key is {SECRET}, keep it."))

    told = ask(stage, surface, vendor.model, Wish(thinks=True), streamed=streamed)

    assert told.text == "It is safe."
    assert told.thought.startswith("The key is ")
    assert SECRET not in told.thought + told.raw.to_json()


def test_log_probabilities_wait_with_the_words_they_spell(stage: Stage):
    """A word that may begin a secret is held back, and so is what would tell it."""
    vendor = stage.vendors["openai-like"]
    wish = Wish(logprobs=True)

    vendor.plays(Said("The password is fine", logprobs=True))
    passed = ask(stage, "chat", vendor.model, wish, streamed=True)
    vendor.plays(Said(f"Take {SECRET} now", logprobs=True))
    masked = ask(stage, "chat", vendor.model, wish, streamed=True)

    assert (passed.text, passed.logprobs) == ("The password is fine", 4)
    assert SECRET not in masked.text + masked.raw.to_json()
    assert masked.text.startswith("Take ")
