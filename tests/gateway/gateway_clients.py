"""A wish said through each surface by its vendor's own SDK, whole or as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway_said import Called
from gateway_stage import Stage
from gateway_wishes import MAX_TOKENS, WEATHER, City, SurfaceName, Told, Wish
from openai.lib._parsing import type_to_response_format_param
from openai.lib.streaming.chat import ChatCompletionStreamState


def ask(stage: Stage, surface: SurfaceName, model: str, wish: Wish, *, streamed: bool) -> Told:
    return _ASK[surface](stage, model, wish, streamed)


# --- chat -------------------------------------------------------------------------------------------------


def _chat(stage: Stage, model: str, wish: Wish, streamed: bool) -> Told:
    """The SDK's own `parse` and `stream` for structured output; beside tools they take strict ones alone."""
    body = {"model": model, "messages": chat_messages(wish), **_chat_settings(wish)}
    completions = stage.openai.chat.completions
    parses = wish.schema and not wish.tools
    if not streamed:
        whole = completions.parse(**body) if parses else completions.create(**body)
        return _chat_told(whole, whole, wish)
    options = {"include_usage": True}
    if parses:
        with completions.stream(**body, stream_options=options) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
            final = stream.get_final_completion()
    else:
        state = ChatCompletionStreamState()
        chunks = list(completions.create(**body, stream=True, stream_options=options))
        for chunk in chunks:
            state.handle_chunk(chunk)
        final = state.current_completion_snapshot
    told = _chat_told(final, [c for c in chunks if "mainstay" in (c.model_extra or {})][-1], wish)
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    arguments = [d for d in deltas for t in d.tool_calls or () if t.function and t.function.arguments]
    return replace(told, argument_pieces=len(arguments), pieces=sum(bool(d.content) for d in deltas))


def chat_messages(wish: Wish) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in wish.turns:
        if turn.results:
            messages += [{"role": "tool", "tool_call_id": i, "content": text} for i, text in turn.results]
            continue
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.calls:
            message["tool_calls"] = [
                {
                    "id": c.id,
                    "type": "function",
                    "function": {"name": c.name, "arguments": json.dumps(c.arguments)},
                }
                for c in turn.calls
            ]
        messages.append(message)
    last = messages[-1]
    if wish.image or wish.file or wish.marks:
        text: dict[str, Any] = {"type": "text", "text": last["content"]}
        if wish.marks:
            text["cache_control"] = {"type": "ephemeral"}
        last["content"] = [text]
    if wish.image:
        url = f"data:image/png;base64,{wish.image}"
        last["content"].append({"type": "image_url", "image_url": {"url": url}})
    if wish.file:
        data = f"data:application/pdf;base64,{wish.file}"
        last["content"].append({"type": "file", "file": {"filename": "a.pdf", "file_data": data}})
    return messages


def _chat_settings(wish: Wish) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_tokens": MAX_TOKENS}
    if wish.tools:
        settings["tools"] = [
            {"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in wish.tools
        ]
    if wish.forced:
        settings["tool_choice"] = {"type": "function", "function": {"name": wish.forced}}
    if wish.schema:
        settings["response_format"] = type_to_response_format_param(City) if wish.tools else City
    if wish.thinks:
        settings["reasoning_effort"] = "low"
    if wish.logprobs:
        settings |= {"logprobs": True, "top_logprobs": 2}
    if wish.stop:
        settings["stop"] = list(wish.stop)
    if wish.one_call_at_a_time:
        settings["parallel_tool_calls"] = False
    plain = {"n": wish.n, "seed": wish.seed, "temperature": wish.temperature}
    return settings | {name: value for name, value in plain.items() if value is not None}


def _chat_told(completion: Any, with_extension: Any, wish: Wish) -> Told:
    first, usage = completion.choices[0], completion.usage
    message, more = first.message, first.message.model_extra or {}
    details = usage.prompt_tokens_details
    written = (details.model_extra or {}).get("cache_write_tokens") or 0
    if written == 0:
        written = getattr(details, "cache_write_tokens", None) or 0
    return Told(
        text=message.content or "",
        finish=first.finish_reason,
        calls=tuple(
            Called(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()
        ),
        thought=more.get("reasoning_content") or "",
        signed=bool(more.get("thinking_blocks")),
        others=tuple(choice.message.content or "" for choice in completion.choices[1:]),
        logprobs=len(first.logprobs.content or ()) if first.logprobs else 0,
        tokens=_tokens(usage.prompt_tokens, details.cached_tokens or 0, written, usage.completion_tokens),
        cost_nusd=with_extension.model_extra["mainstay"]["cost_nusd"],
        parsed=City.model_validate_json(message.content) if wish.schema else None,
        model=completion.model,
        raw=completion,
    )


def _tokens(given: int, cached: int, written: int, output: int) -> tuple[int, int, int, int]:
    """From OpenAI's sums to disjoint classes."""
    return given - cached - written, cached, written, output


# --- responses --------------------------------------------------------------------------------------------


def _responses(stage: Stage, model: str, wish: Wish, streamed: bool) -> Told:
    body = {"model": model, "input": response_items(wish), **_response_settings(wish)}
    shape = {"text_format": City} if wish.schema else {}
    if streamed:
        with stage.openai.responses.stream(**body, **shape) as stream:
            events = list(stream)
        final = events[-1].response  # `get_final_response` knows complete ones alone
        kinds = [event.type for event in events]
        return replace(
            _response_told(final),
            argument_pieces=kinds.count("response.function_call_arguments.delta"),
            pieces=kinds.count("response.output_text.delta"),
        )
    responses = stage.openai.responses
    return _response_told(responses.parse(**body, **shape) if wish.schema else responses.create(**body))


def response_items(wish: Wish) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for turn in wish.turns:
        items += [{"type": "function_call_output", "call_id": i, "output": t} for i, t in turn.results]
        if turn.text:
            items.append({"role": turn.role, "content": turn.text})
        items += [
            {
                "type": "function_call",
                "call_id": c.id,
                "name": c.name,
                "arguments": json.dumps(c.arguments),
            }
            for c in turn.calls
        ]
    last = items[-1]
    if wish.image or wish.file or wish.marks:
        text: dict[str, Any] = {"type": "input_text", "text": last["content"]}
        if wish.marks:
            text["prompt_cache_breakpoint"] = {"mode": "explicit"}
        last["content"] = [text]
    if wish.image:
        url = f"data:image/png;base64,{wish.image}"
        last["content"].append({"type": "input_image", "image_url": url, "detail": "auto"})
    if wish.file:
        data = f"data:application/pdf;base64,{wish.file}"
        last["content"].append({"type": "input_file", "filename": "a.pdf", "file_data": data})
    return items


def _response_settings(wish: Wish) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_output_tokens": MAX_TOKENS}
    if wish.tools:
        settings["tools"] = [
            {"type": "function", "name": name, "parameters": WEATHER, "strict": None} for name in wish.tools
        ]
    if wish.forced:
        settings["tool_choice"] = {"type": "function", "name": wish.forced}
    if wish.thinks:
        settings |= {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}
    if wish.logprobs:
        settings |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    if wish.one_call_at_a_time:
        settings["parallel_tool_calls"] = False
    return settings | ({} if wish.temperature is None else {"temperature": wish.temperature})


def _response_told(response: Any) -> Told:
    by_kind: dict[str, list[Any]] = {"message": [], "function_call": [], "reasoning": []}
    for item in response.output:
        by_kind[item.type].append(item)
    parts = [part for item in by_kind["message"] for part in item.content]
    usage, calls = response.usage, by_kind["function_call"]
    details = usage.input_tokens_details
    written = getattr(details, "cache_write_tokens", 0) or 0
    finish = "tool_calls" if calls else "stop"
    if response.status == "incomplete":
        reason = response.incomplete_details.reason
        finish = "length" if reason == "max_output_tokens" else reason
    return Told(
        text=response.output_text,
        finish=finish,
        calls=tuple(Called(c.call_id, c.name, json.loads(c.arguments)) for c in calls),
        thought="".join(
            part.text for item in by_kind["reasoning"] for part in (item.content or item.summary or ())
        ),
        signed=any(item.encrypted_content for item in by_kind["reasoning"]),
        logprobs=sum(len(part.logprobs or ()) for part in parts),
        tokens=_tokens(usage.input_tokens, details.cached_tokens, written, usage.output_tokens),
        cost_nusd=response.model_extra["mainstay"]["cost_nusd"],
        parsed=getattr(response, "output_parsed", None),
        model=response.model,
        raw=response,
    )


# --- messages ---------------------------------------------------------------------------------------------


_STOPS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def _messages(stage: Stage, model: str, wish: Wish, streamed: bool) -> Told:
    body = {"model": model, **message_turns(wish), **_message_settings(wish)}
    shape = {"output_format": City} if wish.schema else {}
    if streamed:
        with stage.anthropic.messages.stream(**body, **shape) as stream:
            events = list(stream)
            final = stream.get_final_message()
        deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
        told = _message_told(final, [e for e in events if e.type == "message_delta"][-1])
        return replace(
            told, argument_pieces=deltas.count("input_json_delta"), pieces=deltas.count("text_delta")
        )
    messages = stage.anthropic.messages
    whole = messages.parse(**body, **shape) if wish.schema else messages.create(**body)
    return _message_told(whole, whole)


def message_turns(wish: Wish) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    system = [turn.text for turn in wish.turns if turn.role == "system"]
    for turn in wish.turns:
        if turn.role == "system":
            continue
        content: list[dict[str, Any]] = [
            {"type": "tool_result", "tool_use_id": call_id, "content": text} for call_id, text in turn.results
        ]
        if turn.text:
            content.append({"type": "text", "text": turn.text})
        content += [
            {"type": "tool_use", "id": c.id, "name": c.name, "input": dict(c.arguments)} for c in turn.calls
        ]
        turns.append({"role": turn.role, "content": content})
    if wish.marks:
        turns[-1]["content"][0]["cache_control"] = {"type": "ephemeral"}
    if wish.image:
        source = {"type": "base64", "media_type": "image/png", "data": wish.image}
        turns[-1]["content"].append({"type": "image", "source": source})
    if wish.file:
        source = {"type": "base64", "media_type": "application/pdf", "data": wish.file}
        turns[-1]["content"].append({"type": "document", "source": source})
    return {"messages": turns, **({"system": system[0]} if system else {})}


def _message_settings(wish: Wish) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_tokens": MAX_TOKENS}
    if wish.tools:
        settings["tools"] = [{"name": name, "input_schema": WEATHER} for name in wish.tools]
    if wish.forced:
        settings["tool_choice"] = {"type": "tool", "name": wish.forced}
    if wish.one_call_at_a_time:
        settings["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    if wish.thinks:
        settings |= {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    if wish.stop:
        settings["stop_sequences"] = list(wish.stop)
    if wish.temperature is not None:
        settings["extra_body"] = {"temperature": wish.temperature}  # no longer in the SDK's signature
    return settings


def _message_told(message: Any, with_extension: Any) -> Told:
    blocks, usage = message.content, message.usage
    texts = [block for block in blocks if block.type == "text"]
    thoughts = [block for block in blocks if block.type == "thinking"]
    return Told(
        text="".join(block.text for block in texts),
        finish=_STOPS[message.stop_reason],
        calls=tuple(Called(b.id, b.name, b.input) for b in blocks if b.type == "tool_use"),
        thought="".join(block.thinking for block in thoughts),
        signed=any(block.signature for block in thoughts),
        tokens=(
            usage.input_tokens,
            usage.cache_read_input_tokens or 0,
            usage.cache_creation_input_tokens or 0,
            usage.output_tokens,
        ),
        cost_nusd=with_extension.model_extra["mainstay"]["cost_nusd"],
        parsed=next((p for b in texts if (p := getattr(b, "parsed_output", None)) is not None), None),
        model=message.model,
        raw=message,
    )


# --- completions ------------------------------------------------------------------------------------------


def _completions(stage: Stage, model: str, wish: Wish, streamed: bool) -> Told:
    plain = {"n": wish.n, "seed": wish.seed, "temperature": wish.temperature, "stop": list(wish.stop) or None}
    body: dict[str, Any] = {"model": model, "prompt": wish.turns[0].text, "max_tokens": MAX_TOKENS}
    body |= {name: value for name, value in plain.items() if value is not None}
    if not streamed:
        whole = stage.openai.completions.create(**body)
        texts = [(choice.text, choice.finish_reason) for choice in whole.choices]
        return _completion_told(whole.model, texts, whole.usage, whole.model_extra)
    options = {"include_usage": True}
    chunks = list(stage.openai.completions.create(**body, stream=True, stream_options=options))
    said: dict[int, tuple[str, str]] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        text, finish = said.get(choice.index, ("", ""))
        said[choice.index] = (text + choice.text, choice.finish_reason or finish)
    extension = next(c.model_extra for c in chunks if "mainstay" in (c.model_extra or {}))
    told = _completion_told(chunks[0].model, [said[i] for i in sorted(said)], chunks[-1].usage, extension)
    return replace(told, pieces=sum(bool(choice.text) for chunk in chunks for choice in chunk.choices))


def _completion_told(model: str, texts: list[tuple[str, str]], usage: Any, extension: Any) -> Told:
    details = usage.prompt_tokens_details
    written = getattr(details, "cache_write_tokens", None) or 0
    return Told(
        text=texts[0][0],
        finish=texts[0][1],
        others=tuple(text for text, _ in texts[1:]),
        tokens=_tokens(usage.prompt_tokens, details.cached_tokens, written, usage.completion_tokens),
        cost_nusd=extension["mainstay"]["cost_nusd"],
        model=model,
    )


_ASK: Final[Mapping[SurfaceName, Callable[[Stage, str, Wish, bool], Told]]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "completions": _completions,
}
