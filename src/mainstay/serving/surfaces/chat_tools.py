"""Tools, the choice among them and the answer's format, as OpenAI's chat requests give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mainstay.models.types import ResponseFormat, Tool, ToolChoice
from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import common

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def tool_name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadField(where, "must be 1 to 128 letters, digits, or any of _ - . :")
    return value


def read_tools(value: Any, where: str) -> tuple[Tool, ...]:
    tools = tuple(_tool(item, f"{where}[{index}]") for index, item in enumerate(common.items(value, where)))
    refuse_duplicates(tools, where)
    return tools


def refuse_duplicates(tools: tuple[Tool, ...], where: str) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            raise BadField(f"{where}[{index}]", f"there is another tool called {tool.name!r}.")
        seen.add(tool.name)


def read_functions(value: Any, where: str) -> tuple[Tool, ...]:
    """The older `functions`: tools without their wrapping."""
    return tuple(
        _function(common.mapping(item, f"{where}[{index}]"), f"{where}[{index}]", None)
        for index, item in enumerate(common.items(value, where))
    )


def _tool(item: Any, where: str) -> Tool:
    tool = common.mapping(item, where)
    if tool.get("type") != "function":
        raise BadField(
            f"{where}.type",
            f"{common.shown(tool.get('type'))} is not supported: only functions are.",
            fix="Declare the tool as a function and run it in your own code.",
        )
    return _function(common.inner(tool.get("function"), f"{where}.function"), f"{where}.function", tool)


def _function(function: Mapping[str, Any], where: str, wrapping: Mapping[str, Any] | None) -> Tool:
    name = tool_name(function.get("name"), f"{where}.name")
    description, parameters, strict = (function.get(key) for key in ("description", "parameters", "strict"))
    return Tool(
        name,
        None if description is None else common.string(description, f"{where}.description"),
        None if parameters is None else common.inner(parameters, f"{where}.parameters"),
        None if strict is None else common.flag(strict, f"{where}.strict"),
        common.cache_mark(function, where) or (common.cache_mark(wrapping, where) if wrapping else None),
    )


def tool_choice(value: Any, where: str) -> ToolChoice:
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    choice = common.mapping(value, where) if isinstance(value, dict) else {}
    if choice.get("type") == "function":
        return ToolChoice("tool", _name_in(choice.get("function"), f"{where}.function"))
    if choice.get("type") in ("allowed_tools", "custom"):
        raise BadField(
            f"{where}.type",
            f"{choice['type']!r} is not supported.",
            fix="Send only the tools that are allowed." if choice["type"] == "allowed_tools" else None,
        )
    raise BadField(where, 'must be "auto", "none", "required", or an object that names a function.')


def legacy_choice(value: Any, where: str) -> ToolChoice:
    if value in ("auto", "none"):
        return ToolChoice(value)
    return ToolChoice("tool", _name_in(value, where))


def _name_in(value: Any, where: str) -> str:
    return common.text(common.mapping(value, where).get("name"), f"{where}.name")


def read_response_format(value: Any, where: str) -> ResponseFormat | None:
    form = common.mapping(value, where)
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat()
    if kind != "json_schema":
        raise BadField(
            f"{where}.type", f"must be text, json_object or json_schema; got {common.shown(kind)}."
        )
    where = f"{where}.json_schema"
    asked = common.mapping(form.get("json_schema"), where)
    description, strict = asked.get("description"), asked.get("strict")
    return ResponseFormat(
        schema=common.mapping(asked.get("schema"), f"{where}.schema"),
        name=tool_name(asked.get("name"), f"{where}.name"),
        description=None if description is None else common.string(description, f"{where}.description"),
        strict=None if strict is None else common.flag(strict, f"{where}.strict"),
    )
