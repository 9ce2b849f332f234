"""Reads a request for a response (OpenAI API reference, "Create a model response") into the normal form.

What cannot be done is refused with the field's path. Fields without a normal form that OpenAI's chat API
has under the same name go into `extra`, for a provider of that family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from mainstay.models.types import ChatCall, ChatMessage, Reasoning, ResponseFormat, Tool, ToolChoice
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces.responses_input import ItemReader, listed
from mainstay.serving.surfaces.responses_reader import Fields, clipped
from mainstay.serving.types import ChatRequest

NAME_CHARACTERS_MAX: Final = 256
METADATA_PAIRS_MAX: Final = 16
METADATA_KEY_CHARACTERS_MAX: Final = 64
METADATA_VALUE_CHARACTERS_MAX: Final = 512

_REFUSED: Mapping[str, str] = {
    "background": "a response cannot be made in the background.",
    "background_options": "a response cannot be made in the background.",
    "conversation": "conversations are not kept here; continue with previous_response_id.",
    "prompt": "prompt templates are not kept here; an app's prompt is part of its release.",
    "moderation": "is not supported; an app's policy has guards.",
    "context_management": "is not supported.",
    "access_programs": "is not supported.",
    "image": "is not supported.",
    "personality": "is not supported.",
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"background": (False,), "context_management": ([],)}
_INCLUDES = (
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    # These concern hosted tools, which are refused, and images, which are always listed with their URL.
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_PASSED_ON = ("prompt_cache_key", "safety_identifier")
_SUMMARIES = ("auto", "concise", "detailed")
_TOOL_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "defer_loading": (False,),
    "async": (False,),
    "allowed_callers": ([], ["direct"]),
}


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of earlier responses: the conversation so far, and items that may be referred to by id."""

    messages: tuple[ChatMessage, ...] = ()
    items: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_request(body: Mapping[str, Any], past: Past | None = None) -> ChatRequest:
    """Validate. Raises BadField. `past` None: nothing is kept here, so that nothing can be continued."""
    fields = Fields(body)
    for name, problem in _REFUSED.items():
        value = fields.take(name)
        if value is not None and value not in _NEUTRAL.get(name, ()):
            fields.refuse(name, problem, fix=f"Leave {name} out.")
    previous = fields.text("previous_response_id")
    if previous is not None and past is None:
        fields.refuse(
            "previous_response_id", "no responses are kept here.", fix="Send the conversation as input."
        )
    instructions = fields.text("instructions")
    items = _resolved(_items(fields), past)
    call, told = _call(fields, items, past or Past(), instructions)
    return ChatRequest(
        model=fields.needed_text("model", characters_max=NAME_CHARACTERS_MAX),
        call=call,
        stream=_stream(fields),
        include_usage=True,
        metadata=_metadata(fields),
        surface="responses",
        hints=told
        | {
            "previous_response_id": previous,
            "instructions": instructions,
            "input_items": listed(items),
        },
    )


def item_ids(body: Mapping[str, Any]) -> set[str]:
    """Ids of items that the input only names: their content, if it is kept, has to be looked up."""
    items = body.get("input")
    found = (
        [i for i in items if isinstance(i, Mapping) and _is_name_only(i)] if isinstance(items, list) else []
    )
    return {item["id"] for item in found}


def _is_name_only(item: Mapping[str, Any]) -> bool:
    if not isinstance(item.get("id"), str):
        return False
    kind = item.get("type")
    if kind is None:
        return "role" not in item
    return kind == "item_reference" or (kind == "reasoning" and item.get("encrypted_content") is None)


def _items(fields: Fields) -> list[Any]:
    value = fields.take("input")
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        fields.refuse("input", "must be a string, or a list of at least one item.")
    return value


def _resolved(items: Sequence[Any], past: Past | None) -> list[Any]:
    return [_resolve(item, f"input[{index}]", past) for index, item in enumerate(items)]


def _resolve(item: Any, where: str, past: Past | None) -> Any:
    if not isinstance(item, Mapping) or not _is_name_only(item):
        return item
    kept = (past or Past()).items.get(item["id"])
    if kept is None and item.get("type") != "reasoning":
        raise BadField(
            f"{where}.id",
            f"no kept response has the item {clipped(item['id'])}.",
            fix="Send the item itself.",
        )
    return kept or item


def _call(
    fields: Fields, items: Sequence[Any], past: Past, instructions: str | None
) -> tuple[ChatCall, dict[str, Any]]:
    """The call, and what a response repeats of it."""
    reader = ItemReader(past.messages)
    for index, item in enumerate(items):
        reader.take(item, f"input[{index}]")
    messages = (*past.messages, *reader.messages())
    if not messages:
        fields.refuse("input", "has nothing to answer.")
    system = (ChatMessage("system", instructions),) if instructions else ()
    include = _include(fields)
    top_logprobs = fields.whole("top_logprobs", 0, 20)
    tools, choice, told = _tools(fields)
    response_format, verbosity, text = _text(fields)
    reasoning, told_reasoning = _reasoning(fields)
    extra, told_extra = _extra(fields, verbosity)
    fields.one_of("truncation", ("disabled",))
    call = ChatCall(
        model="",
        messages=(*system, *messages),
        max_tokens=fields.whole("max_output_tokens", 1),
        temperature=fields.number("temperature", 0, 2),
        top_p=fields.number("top_p", 0, 1),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        response_format=response_format,
        reasoning=reasoning,
        logprobs="message.output_text.logprobs" in include or bool(top_logprobs),
        top_logprobs=top_logprobs or None,
        frequency_penalty=fields.number("frequency_penalty", -2, 2),
        presence_penalty=fields.number("presence_penalty", -2, 2),
        user=fields.text("user"),
    )
    told |= told_extra | {"include": tuple(sorted(include)), "text": text, "reasoning": told_reasoning}
    told |= {"store": fields.flag("store") is not False, "max_tool_calls": fields.whole("max_tool_calls", 1)}
    fields.ignore("stream", "stream_options", "model", "metadata")
    extra |= fields.rest()
    # Named as OpenAI's chat API names them: a provider that speaks it may have them as they are.
    return replace(call, extra=extra, source_format="openai.chat" if extra else None), told


def _extra(fields: Fields, verbosity: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    extra: dict[str, Any] = {} if verbosity is None else {"verbosity": verbosity}
    told: dict[str, Any] = {}
    for name in _PASSED_ON:
        told[name] = value = fields.text(name)
        extra |= {} if value is None else {name: value}
    tier = fields.text("service_tier")
    if tier not in (None, "auto", "default"):
        extra["service_tier"] = tier
    return extra, told | {"service_tier": extra.get("service_tier", "default")}


def _include(fields: Fields) -> frozenset[str]:
    values = fields.array("include") or []
    for index, value in enumerate(values):
        if value not in _INCLUDES:
            raise BadField(f"include[{index}]", f"must be one of {', '.join(_INCLUDES)}.")
    return frozenset(values)


def _text(fields: Fields) -> tuple[ResponseFormat | None, str | None, dict[str, Any]]:
    """(format, verbosity, what the response repeats of both)."""
    text = fields.nested("text") or Fields({}, "text")
    verbosity = text.one_of("verbosity", ("low", "medium", "high"))
    shape = text.nested("format") or Fields({"type": "text"}, "text.format")
    text.refuse_unread()
    kind = shape.one_of("type", ("text", "json_object", "json_schema"))
    if kind is None:
        shape.refuse("type", "must be text, json_object or json_schema.")
    told: dict[str, Any] = {"format": {"type": kind}}
    told |= {} if verbosity is None else {"verbosity": verbosity}
    wanted = ResponseFormat() if kind == "json_object" else None
    if kind == "json_schema":
        wanted = _schema(shape)
        told["format"] |= {
            "name": wanted.name,
            "description": wanted.description,
            "schema": wanted.schema,
            "strict": wanted.strict,
        }
    shape.refuse_unread()
    return wanted, verbosity, told


def _schema(shape: Fields) -> ResponseFormat:
    schema = shape.plain("schema")
    if schema is None:
        shape.refuse("schema", "must be a JSON Schema.")
    name = shape.needed_text("name", characters_max=64)
    return ResponseFormat(schema, name, shape.text("description"), shape.flag("strict"))


def _reasoning(fields: Fields) -> tuple[Reasoning | None, dict[str, Any]]:
    given = fields.nested("reasoning")
    told: dict[str, Any] = {"effort": None, "summary": None}
    if given is None:
        return None, told
    summary = given.one_of("summary", _SUMMARIES) or given.one_of("generate_summary", _SUMMARIES)
    given.ignore("generate_summary")
    reasoning = Reasoning(effort=given.text("effort"), summary=summary)
    given.refuse_unread({"mode": ("standard",), "context": ("auto",)})
    return reasoning, {"effort": reasoning.effort, "summary": summary}


def _tools(fields: Fields) -> tuple[tuple[Tool, ...], ToolChoice | None, dict[str, Any]]:
    tools = tuple(_tool(value, f"tools[{index}]") for index, value in enumerate(fields.array("tools") or []))
    choice, allowed = _tool_choice(fields, [tool.name for tool in tools])
    told = {
        "tools": [_tool_body(tool) for tool in tools],
        "tool_choice": fields.take("tool_choice") or "auto",
    }
    # Only the allowed tools are shown to the model: what it does not know, it cannot call.
    return tuple(tool for tool in tools if allowed is None or tool.name in allowed), choice, told


def _tool(value: object, where: str) -> Tool:
    fields = Fields(value, where)
    kind = fields.text("type")
    if kind != "function":
        fields.refuse(
            "type",
            f"{clipped(kind or '')} is not supported: only functions, which the client runs.",
            fix="Send tools of type function.",
        )
    tool = Tool(
        fields.needed_text("name", characters_max=128),
        fields.text("description"),
        fields.plain("parameters"),
        fields.flag("strict"),
    )
    fields.refuse_unread(_TOOL_NEUTRAL)
    return tool


def _tool_body(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _tool_choice(fields: Fields, names: Sequence[str]) -> tuple[ToolChoice | None, set[str] | None]:
    """(choice, names of the tools that may be called or None for all)."""
    value = fields.take("tool_choice")
    if value is None:
        return None, None
    if isinstance(value, str):
        if value not in ("auto", "none", "required"):
            fields.refuse("tool_choice", f"must be auto, none, required or an object; got {clipped(value)}.")
        if value == "required" and not names:
            fields.refuse("tool_choice", "'required' needs at least one tool.")
        return ToolChoice(cast(Any, value)), None
    choice = Fields(value, "tool_choice")
    kind = choice.one_of("type", ("function", "allowed_tools"))
    if kind == "function":
        name = _known(choice, "name", names)
        choice.refuse_unread()
        return ToolChoice("tool", name), None
    if kind is None:
        choice.refuse("type", "must be function or allowed_tools.")
    mode = choice.one_of("mode", ("auto", "required")) or "auto"
    listed_tools = choice.array("tools")
    if not listed_tools:
        choice.refuse("tools", "must be a list of at least one tool.")
    allowed = {_allowed(tool, f"tool_choice.tools[{i}]", names) for i, tool in enumerate(listed_tools)}
    choice.refuse_unread()
    return ToolChoice(cast(Any, mode)), allowed


def _allowed(value: object, where: str, names: Sequence[str]) -> str:
    fields = Fields(value, where)
    fields.one_of("type", ("function",))
    name = _known(fields, "name", names)
    fields.refuse_unread()
    return name


def _known(fields: Fields, field_name: str, names: Sequence[str]) -> str:
    name = fields.needed_text(field_name)
    if name not in names:
        fields.refuse(field_name, f"no tool is called {clipped(name)}.")
    return name


def _stream(fields: Fields) -> bool:
    options = fields.nested("stream_options")
    if options is not None:
        if options.flag("include_obfuscation"):
            options.refuse("include_obfuscation", "events are not padded here.", fix="Leave it out.")
        options.ignore("include_usage")
        options.refuse_unread()
    return fields.flag("stream") or False


def _metadata(fields: Fields) -> Mapping[str, Any]:
    pairs = fields.plain("metadata") or {}
    if len(pairs) > METADATA_PAIRS_MAX:
        fields.refuse("metadata", f"has {len(pairs)} pairs; at most {METADATA_PAIRS_MAX} are allowed.")
    for key, value in pairs.items():
        where = f"metadata.{key[:METADATA_KEY_CHARACTERS_MAX]}"
        if len(key) > METADATA_KEY_CHARACTERS_MAX:
            raise BadField(where, f"a key has at most {METADATA_KEY_CHARACTERS_MAX} characters.")
        if not isinstance(value, str) or len(value) > METADATA_VALUE_CHARACTERS_MAX:
            raise BadField(where, f"must be a string of at most {METADATA_VALUE_CHARACTERS_MAX} characters.")
    return pairs
