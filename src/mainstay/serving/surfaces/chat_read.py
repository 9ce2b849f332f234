"""Reads a chat completion request (OpenAI API reference, "Create chat completion") into the normal form.

Beyond OpenAI's own fields: `cache_control` on parts, messages and tools, `reasoning_content` and
`thinking_blocks` on assistant messages, and `top_k`, as OpenAI-compatible servers and their clients use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mainstay.models.types import ChatCall, Reasoning
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import common
from mainstay.serving.surfaces.chat_messages import read_messages
from mainstay.serving.surfaces.chat_tools import (
    legacy_choice,
    read_functions,
    read_response_format,
    read_tools,
    tool_choice,
)
from mainstay.serving.types import ChatRequest

ROUTING: Final = frozenset(
    {"models", "fallbacks", "route", "provider", "preset", "plugins", "web_search_options"}
)
"""Fields of some vendors that put another model behind the name, or charge for more than tokens."""

CHOICES_MAX: Final = 16


def read_chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """Validate; raises BadField naming the field. Fields not known here end in `extra`."""
    asked: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in body.items():
        if value is None:
            continue
        if (reader := CALL_FIELDS.get(name)) is not None:
            fields[name] = reader(value, name)
        elif (reader := _REQUEST_FIELDS.get(name)) is not None:
            asked[name] = reader(value, name)
        elif (refuse := _REFUSED.get(name)) is not None:
            refuse(value, name)
        else:
            extra[name] = common.bounded(value, name)
    if "messages" not in fields:
        raise BadField("messages", "must be a list of at least one message.")
    if "model" not in asked:
        raise BadField("model", "must be a string that is not empty.")
    hints = _settle(fields)
    # What the older functions ask for is rebuilt as tools, so that every provider answers in one way.
    source = None if hints else body
    call = ChatCall(model="", extra=extra, source=source, source_format="openai.chat", **fields)
    return ChatRequest(
        asked["model"],
        call,
        asked.get("stream", False),
        asked.get("stream_options", False),
        asked.get("metadata", {}),
        "chat",
        hints,
    )


_UNSETTLED: Final = frozenset(
    {
        "max_completion_tokens",
        "reasoning_effort",
        "top_logprobs",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "parallel_tool_calls",
        "logit_bias",
    }
)
"""Fields whose meaning depends on others, or that the normal form calls otherwise."""


def _settle(fields: dict[str, Any]) -> Mapping[str, Any]:
    """From the request's names to the normal form's; the result is the hints for the renderer."""
    if _UNSETTLED.isdisjoint(fields):
        return {}
    if "max_completion_tokens" in fields:
        fields["max_tokens"] = fields.pop("max_completion_tokens")
    if "reasoning_effort" in fields:
        fields["reasoning"] = fields.pop("reasoning_effort")
    if "top_logprobs" in fields and not fields.get("logprobs"):
        raise BadField("top_logprobs", "needs logprobs.", fix="Set logprobs to true.")
    if not fields.get("logit_bias", True):
        del fields["logit_bias"]
    return _settle_tools(fields)


def _settle_tools(fields: dict[str, Any]) -> Mapping[str, Any]:
    functions, called = fields.pop("functions", ()), fields.pop("function_call", None)
    legacy = bool(functions)
    if legacy and fields.get("tools"):
        raise BadField("functions", "may not be given together with tools.", fix="Use tools alone.")
    if legacy:
        # One call an answer is all that the older form can say.
        fields |= {"tools": functions, "tool_choice": called, "parallel_tool_calls": False}
    elif called is not None and called.mode in ("required", "tool"):
        raise BadField("function_call", "needs functions.")
    tools, choice = fields.get("tools", ()), fields.get("tool_choice")
    where = "function_call" if legacy else "tool_choice"
    if choice is not None and not tools:
        if choice.mode in ("required", "tool"):
            raise BadField(where, "needs tools.")
        del fields["tool_choice"]
    elif choice is not None and choice.mode == "tool" and all(tool.name != choice.name for tool in tools):
        raise BadField(where, f"names {common.shown(choice.name)}, which is not among the tools.")
    if not tools:
        fields.pop("parallel_tool_calls", None)
    return {"legacy_functions": True} if legacy else {}


def _stop(value: Any, where: str) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise BadField(where, "must be a string or a list of up to 4 strings.")
    return tuple(stops)


def stream_options(value: Any, where: str) -> bool:
    wanted = common.mapping(value, where).get("include_usage")
    return False if wanted is None else common.flag(wanted, f"{where}.include_usage")


_BIAS = common.number(-100, 100)


def _logit_bias(value: Any, where: str) -> Mapping[str, float]:
    return {token: _BIAS(bias, f"{where}.{token}") for token, bias in common.mapping(value, where).items()}


def _reasoning(value: Any, where: str) -> Reasoning:
    """`none` asks for no thinking at all, which the normal form says as a budget of 0."""
    effort = common.text(value, where)
    return Reasoning(budget_tokens=0) if effort == "none" else Reasoning(effort=effort)


_WHOLE_TOP_K = common.whole_number(-1)


def _top_k(value: Any, where: str) -> int | None:
    """-1 and 0 mean all tokens to the servers that know the field."""
    top_k: int = _WHOLE_TOP_K(value, where)
    return top_k if top_k > 0 else None


def refuse_routing(value: Any, where: str) -> None:
    raise BadField(where, "is not supported: the model's name says who answers.", fix=f"Leave {where} out.")


def _refuse_audio(value: Any, where: str) -> None:
    if value not in ([], ["text"]):
        raise BadField(where, "answers are text only.", fix=f"Leave {where} out.")


CALL_FIELDS: Final[Mapping[str, common.Reader]] = {
    "messages": read_messages,
    "max_tokens": common.whole_number(1),
    "max_completion_tokens": common.whole_number(1),
    "temperature": common.number(0, 2),
    "top_p": common.number(0, 1),
    "top_k": _top_k,
    "stop": _stop,
    "seed": common.whole_number(),
    "n": common.whole_number(1, CHOICES_MAX),
    "tools": read_tools,
    "tool_choice": tool_choice,
    "functions": read_functions,
    "function_call": legacy_choice,
    "parallel_tool_calls": common.flag,
    "response_format": read_response_format,
    "reasoning_effort": _reasoning,
    "logprobs": common.flag,
    "top_logprobs": common.whole_number(0, 20),
    "frequency_penalty": common.number(-2, 2),
    "presence_penalty": common.number(-2, 2),
    "logit_bias": _logit_bias,
    "user": common.text,
}
_REQUEST_FIELDS: Final[Mapping[str, common.Reader]] = {
    "model": common.model_name,
    "stream": common.flag,
    "stream_options": stream_options,
    "metadata": common.mapping,
}
_REFUSED: Final[Mapping[str, Callable[[Any, str], None]]] = {
    **dict.fromkeys(ROUTING, refuse_routing),
    "modalities": _refuse_audio,
    "audio": _refuse_audio,
}
