"""Structured output for models that cannot do it themselves: the schema is asked for in words, the answer is
validated, and one answer that does not fit is sent back once to be mended. Never passed on unchecked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
import orjson

from mainstay.core.errors import MainstayError
from mainstay.models.types import ChatCall, ChatMessage, Choice, Route
from mainstay.serving.errors import BadField
from mainstay.serving.preparing import preparer
from mainstay.serving.routing.types import Plan
from mainstay.serving.run import Run
from mainstay.serving.schema_check import problem_with

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


class StructureNotMet(MainstayError):
    """The model's answer, mended once, is still not of the schema that was asked for."""

    status, code, type = 502, "structured_output_invalid", "upstream_error"
    retryable = False


@dataclass(frozen=True, slots=True)
class Emulation:
    """A call whose schema no target of the route takes natively."""

    call: ChatCall
    schema: Mapping[str, Any]

    async def answer(self, run: Run, plan: Plan) -> None:
        """Sets `run.whole` to an answer that fits the schema. Raises StructureNotMet."""
        said, problem = await self._once(run, plan, self.call)
        if problem is not None:
            mend = (
                ChatMessage("assistant", said),
                ChatMessage(
                    "user", f"That is not valid: {problem}. Answer again with the corrected JSON only."
                ),
            )
            again = replace(self.call, messages=(*self.call.messages, *mend))
            said, problem = await self._once(run, replace(plan, attempts=[]), again)
        if problem is not None:
            # What is wrong quotes the answer, which an output rail has not judged.
            guarded = run.policy is not None and run.policy.rails.get("output")
            told = "." if guarded else f": {problem}."
            raise StructureNotMet(
                f"{run.target.public_name} did not answer in the asked-for JSON schema{told}",
                fix="Ask a model that supports json_schema itself, or make the schema simpler.",
                param="response_format",
            )
        run.whole = (Choice(text=said, finish_reason="stop"),)

    async def _once(self, run: Run, plan: Plan, call: ChatCall) -> tuple[str, str | None]:
        """(the answer without fences, what is wrong with it)"""
        completion = await run.deps.dispatcher.complete(plan, preparer(run, call), run.meter)
        text = completion.choices[0].text if completion.choices else ""
        fenced = _FENCE.match(text)
        said = (fenced.group(1) if fenced else text).strip()
        return said, await asyncio.to_thread(problem_with, said, self.schema)


def emulated(call: ChatCall, route: Route) -> Emulation | None:
    """How to emulate the schema this call asks for; None when it asks for none, or a target takes it natively.

    Raises BadField when it cannot be emulated: together with tools, with several choices, or a broken schema.
    """
    wanted = call.response_format
    if wanted is None or wanted.schema is None:
        return None
    if any("json_schema" in routed.target.capabilities for routed in route.targets):
        return None
    if call.tools or call.n > 1:
        raise BadField(
            "response_format",
            f"{route.name} cannot keep a JSON schema together with {'tools' if call.tools else 'n > 1'}.",
            fix="Leave one of them out, or ask a model that supports json_schema itself.",
        )
    try:
        jsonschema.Draft202012Validator.check_schema(dict(wanted.schema))
    except jsonschema.SchemaError as error:
        raise BadField("response_format.json_schema.schema", f"is no JSON Schema: {error.message}") from error
    told = ChatMessage("system", _instruction(wanted.schema))
    plain = replace(
        call,
        messages=(*_leading(call.messages), told, *_following(call.messages)),
        response_format=None,
        source=None,
    )
    return Emulation(plain, wanted.schema)


def _instruction(schema: Mapping[str, Any]) -> str:
    return (
        "Answer with one JSON value that is valid against this JSON Schema, and with nothing else: no prose, "
        f"no code fence.\n{orjson.dumps(dict(schema)).decode()}"
    )


def _leading(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    count = next((i for i, m in enumerate(messages) if m.role not in ("system", "developer")), len(messages))
    return messages[:count]


def _following(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    return messages[len(_leading(messages)) :]
