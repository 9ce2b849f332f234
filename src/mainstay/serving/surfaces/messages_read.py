"""Reads a request of Anthropic's Messages API (Claude API reference, "Messages") into the normal form.

What only Anthropic's own models can do (an example of a tool's input, citations of a document) has no normal
form: it is kept in `extra` under its path, so that it reaches them and every other model refuses it by name.
Tools that Anthropic runs itself are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mainstay.models.types import ChatCall, ChatMessage, Reasoning, ResponseFormat, Tool, ToolChoice
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import common
from mainstay.serving.surfaces.chat_tools import refuse_duplicates, tool_name
from mainstay.serving.surfaces.messages_blocks import Conversation
from mainstay.serving.types import ChatRequest

STOPS_MAX: Final = 64
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none", "tool": "tool"}


def read_messages_request(body: Mapping[str, Any], *, count_only: bool = False) -> ChatRequest:
    """Validate; raises BadField. `count_only`: it is to be counted, so `max_tokens` need not be given."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in given.keys() & _REFUSED.keys():
        raise BadField(name, "is not supported.", fix=_REFUSED[name])
    for name in ("model", "messages") if count_only else ("model", "messages", "max_tokens"):
        if name not in given:
            raise BadField(name, "is required.")
    extra = {n: common.bounded(v, n) for n, v in given.items() if n not in _READERS and n not in _SHAPED}
    conversation = Conversation(extra)
    messages = (*_system(given, conversation), *conversation.read(given["messages"], "messages"))
    fields = {n: _READERS[n](value, n) for n, value in given.items() if n in _READERS}
    tools = _tools(given.get("tools", []), "tools", extra)
    choice, parallel = _tool_choice(given.get("tool_choice"), "tool_choice", tools)
    metadata = common.mapping(given.get("metadata", {}), "metadata")
    call = ChatCall(
        model="",
        messages=messages,
        max_tokens=fields.get("max_tokens"),
        temperature=fields.get("temperature"),
        top_p=fields.get("top_p"),
        top_k=fields.get("top_k"),
        stop=fields.get("stop_sequences", ()),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_response_format(given, extra),
        reasoning=_reasoning(given),
        user=_user(metadata),
        extra=extra,
        source=body,
        source_format="anthropic.messages",
    )
    return ChatRequest(
        fields["model"], call, fields.get("stream", False), metadata=metadata, surface="messages"
    )


def _system(given: Mapping[str, Any], conversation: Conversation) -> tuple[ChatMessage, ...]:
    system = given.get("system")
    if system in (None, "", []):
        return ()
    return (conversation.text_message("system", system, "system"),)


def _stops(value: Any, where: str) -> tuple[str, ...]:
    stops = common.items(value, where)
    if len(stops) > STOPS_MAX or not all(isinstance(stop, str) and stop for stop in stops):
        raise BadField(where, f"must be a list of up to {STOPS_MAX} strings.")
    return tuple(stops)


def _tools(value: Any, where: str, extra: dict[str, Any]) -> tuple[Tool, ...]:
    tools = tuple(
        _tool(item, f"{where}[{index}]", extra) for index, item in enumerate(common.items(value, where))
    )
    refuse_duplicates(tools, where)
    return tools


def _tool(item: Any, where: str, extra: dict[str, Any]) -> Tool:
    tool = common.mapping(item, where)
    if tool.get("type") not in (None, "custom"):
        raise BadField(
            f"{where}.type",
            f"{common.shown(tool['type'])} is not supported: tools run on the client's side only.",
            fix="Declare the tool with a name and an input_schema, and run it in your own code.",
        )
    for name, neutral in _TOOL_EXTRAS.items():
        if tool.get(name) not in (None, neutral):
            extra[f"{where}.{name}"] = tool[name]
    description, strict = tool.get("description"), tool.get("strict")
    return Tool(
        tool_name(tool.get("name"), f"{where}.name"),
        None if description is None else common.string(description, f"{where}.description"),
        common.inner(tool.get("input_schema"), f"{where}.input_schema"),
        None if strict is None else common.flag(strict, f"{where}.strict"),
        common.cache_mark(tool, where),
    )


_TOOL_EXTRAS: Final[Mapping[str, Any]] = {
    "allowed_callers": ["direct"],
    "defer_loading": False,
    "input_examples": [],
}
"""Fields of a tool that only Anthropic knows, and the value that asks for nothing."""


def _tool_choice(value: Any, where: str, tools: tuple[Tool, ...]) -> tuple[ToolChoice | None, bool | None]:
    """(choice, whether calls may be parallel)."""
    if value is None:
        return None, None
    given = common.mapping(value, where)
    mode = given.get("type")
    if not isinstance(mode, str) or mode not in _CHOICES:
        raise BadField(f"{where}.type", f"must be one of {', '.join(_CHOICES)}; got {common.shown(mode)}.")
    name = None
    if mode == "tool":
        name = common.text(given.get("name"), f"{where}.name")
        if all(tool.name != name for tool in tools):
            raise BadField(f"{where}.name", f"{name!r} is not among the tools.")
    elif mode == "any" and not tools:
        raise BadField(where, "needs tools.")
    serial = given.get("disable_parallel_tool_use")
    alone = serial is not None and common.flag(serial, f"{where}.disable_parallel_tool_use")
    if not tools:
        return None, None
    return ToolChoice(_CHOICES[mode], name), (False if alone else None)  # type: ignore[arg-type]


def _response_format(given: Mapping[str, Any], extra: dict[str, Any]) -> ResponseFormat | None:
    """`output_config.format`, or the older `output_format`. What else `output_config` says stays in `extra`."""
    config = common.mapping(given.get("output_config", {}), "output_config")
    rest = {n: v for n, v in config.items() if n not in ("format", "effort") and v is not None}
    if rest:
        extra["output_config"] = rest
    where = "output_config.format" if config.get("format") is not None else "output_format"
    asked = config.get("format") if config.get("format") is not None else given.get("output_format")
    if asked is None:
        return None
    form = common.mapping(asked, where)
    if form.get("type") != "json_schema":
        raise BadField(f"{where}.type", f"must be json_schema; got {common.shown(form.get('type'))}.")
    return ResponseFormat(common.inner(form.get("schema"), f"{where}.schema"))


_BUDGET = common.whole_number(1)
_DISPLAY = common.one_of("summarized", "omitted")


def _reasoning(given: Mapping[str, Any]) -> Reasoning | None:
    """`thinking` and `output_config.effort`; adaptive thinking without an effort is Anthropic's default, high."""
    effort = common.mapping(given.get("output_config", {}), "output_config").get("effort")
    if effort is not None:
        common.text(effort, "output_config.effort")
    if "thinking" not in given:
        return None if effort is None else Reasoning(effort=effort)
    thinking = common.mapping(given["thinking"], "thinking")
    kind, display = thinking.get("type"), thinking.get("display")
    summary = None
    if display is not None:
        summary = "auto" if _DISPLAY(display, "thinking.display") == "summarized" else "none"
    if kind == "disabled":
        return Reasoning(effort=effort, budget_tokens=0)
    if kind == "adaptive":
        return Reasoning(effort=effort or "high", summary=summary)
    if kind != "enabled":
        raise BadField("thinking.type", f"must be enabled, adaptive or disabled; got {common.shown(kind)}.")
    budget = _BUDGET(thinking.get("budget_tokens"), "thinking.budget_tokens")
    return Reasoning(effort=effort, budget_tokens=budget, summary=summary)


def _user(metadata: Mapping[str, Any]) -> str | None:
    user = metadata.get("user_id")
    return None if user is None else common.string(user, "metadata.user_id") or None


_READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "model": common.model_name,
    "max_tokens": common.whole_number(1),
    "temperature": common.number(0, 1),
    "top_p": common.number(0, 1),
    "top_k": common.whole_number(1),
    "stop_sequences": _stops,
    "stream": common.flag,
}
_SHAPED: Final = frozenset(
    {
        "system",
        "messages",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "output_format",
        "metadata",
    }
)
_REFUSED: Final[Mapping[str, str]] = {
    "container": "Leave container out: tools run on the client's side.",
    "mcp_servers": "Connect to the MCP server in your own code and declare its tools.",
    "fallbacks": "Name a route: it says which models stand in for each other.",
    "fallback_credit_token": "Leave fallback_credit_token out.",
    "thread": "Send the conversation's messages.",
}
