"""A tool call that must be made, held to its schema by a grammar.

llama.cpp takes `tool_choice: "required"` but lets the model talk instead, and takes a named choice for "auto". So
the model gets its tools through its template as ever, and the answer must be a JSON object that names one of them
and gives its arguments; that is then told as the call it is. One call is made.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from mainstay.core.ids import new_id
from mainstay.models.providers.translation import refused
from mainstay.models.types import ChatCall, Delta, ResponseFormat, Tool, ToolCallDelta, ToolChoice

_CUT: Final = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*(.*)', re.DOTALL)
"""A call whose arguments were cut at the limit of tokens."""


@dataclass(frozen=True, slots=True)
class ForcedCall:
    """The tools one of which must be called."""

    tools: tuple[Tool, ...]

    @classmethod
    def of(cls, call: ChatCall) -> ForcedCall | None:
        """None when the call leaves the choice to the model. Raises ProviderBadRequest for an unknown tool."""
        choice = call.tool_choice
        if choice is None or choice.mode not in ("required", "tool"):
            return None
        tools = tuple(tool for tool in call.tools if choice.mode == "required" or tool.name == choice.name)
        if not tools:
            raise refused(
                "local", "tool_choice", f"was given no tool {choice.name!r}", "Name one of `tools`."
            )
        return cls(tools)

    def constrained(self, call: ChatCall) -> ChatCall:
        """The call with the grammar in place of its choice."""
        options = [_shape(tool) for tool in self.tools]
        schema = options[0] if len(options) == 1 else {"anyOf": options}
        return replace(
            call,
            tool_choice=ToolChoice("none") if not call.tools else None,
            parallel_tool_calls=None,
            response_format=ResponseFormat(schema=schema),
        )

    async def deltas(self, said: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
        """The engine's deltas, their text told as a tool call when it is whole or at its end."""
        text: list[str] = []
        async for delta in said:
            text.append(delta.text)
            if delta.finish_reason is not None:
                piece = _call(text)
                if piece is not None:
                    yield Delta(tool_calls=(piece,), model=delta.model)
                finish = "tool_calls" if delta.finish_reason == "stop" else delta.finish_reason
                yield replace(delta, text="", finish_reason=finish, logprobs=())
            elif delta.usage is not None or delta.reasoning or delta.logprobs:
                yield replace(delta, text="")


def _shape(tool: Tool) -> dict[str, Any]:
    arguments = dict(tool.parameters) if tool.parameters else {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _call(pieces: list[str]) -> ToolCallDelta | None:
    text = "".join(pieces)
    try:
        made = orjson.loads(text)
        name, arguments = str(made["name"]), orjson.dumps(made["arguments"]).decode()
    except (orjson.JSONDecodeError, KeyError, TypeError):
        cut = _CUT.match(text)
        if cut is None:
            return None
        name, arguments = cut.group(1), cut.group(2)
    return ToolCallDelta(index=0, id=new_id("call"), name=name, arguments=arguments)
