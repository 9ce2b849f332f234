"""No text goes by the input rail, wherever in a request it hides."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from serving_door import HI, asked_by, door
from serving_plane import CHEAP, Plane, Scripted
from serving_rails import ATTACK, BLOCKS, MAIL, MASKS, WATCHES

from mainstay.core.database import Database
from mainstay.guard.types import CheckRule
from mainstay.models import ProviderError
from mainstay.models.providers.anthropic_wire import encode as encode_anthropic
from mainstay.models.providers.anthropic_wire import encode_count
from mainstay.models.providers.openai_encode import Dialect, Encoder
from mainstay.models.types import ChatCall, Embeddings, Target, WireFormat
from mainstay.serving.responses import ResponsesService, ResponseStore


class Messages(Scripted):
    """A provider of Anthropic's format that counts tokens, too."""

    wire_format: WireFormat | None = "anthropic.messages"

    def __init__(self, name: str = "claude") -> None:
        super().__init__(name)
        self.counted: list[ChatCall] = []
        self.embedded: list[tuple[str, ...]] = []

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int:
        self.counted.append(call)
        return 7

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        self.embedded.append(texts)
        return Embeddings(tuple((0.5,) for _ in texts), 3)


def with_claude(plane: Plane) -> Messages:
    provider = Messages()
    plane.adds("claude/large", Target("claude/large", provider, "large", CHEAP, 4096, 1000))
    provider.says("Fine.")
    return provider


def sent(call: ChatCall) -> str:
    """All that leaves for a provider of either wire format."""
    if call.source_format == "anthropic.messages":
        return encode_anthropic(call, "claude", stream=False).decode()
    return Encoder("acme", "max_tokens", Dialect()).encode(call, stream=False).decode()


CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


CHAT: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "user", "content": f"I am {MAIL}"}]},
    "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": MAIL}, {"type": "text", "text": "x"}]}]},
    "system": {"messages": [{"role": "system", "content": f"Serve {MAIL}"}, HI]},
    "developer": {"messages": [{"role": "developer", "content": f"Serve {MAIL}"}, HI]},
    "assistant": {"messages": [HI, {"role": "assistant", "content": f"You are {MAIL}"}, HI]},
    "refusal beside content": {"messages": [HI, {"role": "assistant", "content": "no", "refusal": MAIL}, HI]},
    "name": {"messages": [{"role": "user", "content": "hi", "name": MAIL}]},
    "unknown member of a message": {"messages": [{"role": "user", "content": "hi", "note": {"deep": [MAIL]}}]},
    "unknown member of a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "note": MAIL}]}]},
    "arguments": {"messages": [HI, {**CALLS, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": MAIL})}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]},
    "escaped arguments": {"messages": [HI, {**CALLS, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"to":"jane.roe\\u0040example.com"}'}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]},
    "tool result": {"messages": [HI, CALLS, {"role": "tool", "tool_call_id": "call_1", "content": MAIL}]},
    "older function result": {"messages": [HI, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": MAIL}]},
    "older functions": {"messages": [HI], "functions": [{"name": "f", "description": MAIL}]},
    "reasoning": {"messages": [HI, {"role": "assistant", "content": "ok", "reasoning_content": MAIL}, HI]},
    "tool description": {"messages": [HI], "tools": [function(description=f"Writes to {MAIL}")]},
    "tool parameters": {"messages": [HI], "tools": [function(parameters={"type": "object", "properties": {"to": {"default": MAIL}}})]},
    "schema": {"messages": [HI], "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "description": MAIL}}}},
    "prediction": {"messages": [HI], "prediction": {"type": "content", "content": f"To {MAIL}"}},
    "metadata": {"messages": [HI], "metadata": {"who": MAIL}},
    "name of an unknown member": {"messages": [HI], "later": {MAIL: 1}},
    "user": {"messages": [HI], "user": MAIL},
    "stop": {"messages": [HI], "stop": [MAIL]},
    "text file": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": "a.txt", "file_data": base64.b64encode(f"I am {MAIL}".encode()).decode()}}]}]},
    "file name": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": f"{MAIL}.pdf", "file_data": "JVBERi0="}}]}]},
    "text behind data:": {"messages": [HI], "later": f"data:{MAIL}"},
}  # fmt: skip


@pytest.mark.parametrize("where", CHAT)
async def test_what_the_input_rail_masks_leaves_no_part_of_a_chat(
    serve: Any, plane: Plane, where: str
) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    async with door(serve, plane) as post:
        status, body = await post("/chat/completions", {"model": "acme/small", **CHAT[where]})
    assert status == 200, body
    left = sent(plane.model.calls[0])
    assert MAIL not in left
    assert base64.b64encode(MAIL.encode()).decode()[:8] not in left
    assert (MAIL in str(plane.sink.traces[-1])) is (where == "user")  # a trace is found by its user


ANTHROPIC: dict[str, dict[str, Any]] = {
    "system": {"system": [{"type": "text", "text": f"Serve {MAIL}"}], "messages": [HI]},
    "tool result": {"messages": [HI, {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": MAIL}]}]}]},
    "tool input": {"messages": [HI, {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"to": MAIL}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "ok"}]}]},
    "text document": {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": f"I am {MAIL}"}}]}]},
    "document title": {"messages": [{"role": "user", "content": [{"type": "document", "title": MAIL, "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]}]},
    "document context": {"messages": [{"role": "user", "content": [{"type": "document", "context": MAIL, "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]}]},
    "user id": {"messages": [HI], "metadata": {"user_id": MAIL}},
    "tool example": {"messages": [HI], "tools": [{"name": "f", "input_schema": {"type": "object"}, "input_examples": [{"to": MAIL}]}]},
    "thinking": {"messages": [HI, {"role": "assistant", "content": [{"type": "thinking", "thinking": f"It is {MAIL}", "signature": "sig"}, {"type": "text", "text": "ok"}]}, HI]},
}  # fmt: skip


@pytest.mark.parametrize("where", ANTHROPIC)
@pytest.mark.parametrize("counted", [False, True])
async def test_what_the_input_rail_masks_leaves_no_part_of_anthropics_messages(
    serve: Any, plane: Plane, where: str, counted: bool
) -> None:
    plane.guards_models_with(MASKS)
    provider = with_claude(plane)
    body = {"model": "claude/large", **ANTHROPIC[where]} | ({} if counted else {"max_tokens": 9})
    async with door(serve, plane) as post:
        status, text = await post("/messages/count_tokens" if counted else "/messages", body)
    assert status == 200, text
    (call,) = provider.counted if counted else provider.calls
    left = encode_count(call, "claude").decode() if counted else sent(call)
    assert MAIL not in left
    assert "amFuZS5y" not in left


RESPONSES: dict[str, dict[str, Any]] = {
    "text": {"input": f"I am {MAIL}"},
    "instructions": {"instructions": f"Serve {MAIL}", "input": "hi"},
    "item": {"input": [{"role": "user", "content": [{"type": "input_text", "text": MAIL}]}]},
    "output": {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": MAIL}]},
    "reasoning": {"input": [HI, {"type": "reasoning", "summary": [{"type": "summary_text", "text": MAIL}]}, HI]},
    "tool": {"input": "hi", "tools": [{"type": "function", "name": "f", "description": MAIL, "parameters": None, "strict": None}]},
    "safety identifier": {"input": "hi", "safety_identifier": MAIL},
    "file": {"input": [{"role": "user", "content": [{"type": "input_file", "filename": "a.csv", "file_data": "data:text/csv;base64," + base64.b64encode(MAIL.encode()).decode()}]}]},
}  # fmt: skip


@pytest.mark.parametrize("where", RESPONSES)
async def test_what_the_input_rail_masks_leaves_no_part_of_a_response(
    serve: Any, plane: Plane, where: str
) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    async with door(serve, plane) as post:
        status, body = await post("/responses", {"model": "acme/small", **RESPONSES[where]})
    assert status == 200, body
    assert MAIL not in sent(plane.model.calls[0])
    assert base64.b64encode(MAIL.encode()).decode() not in sent(plane.model.calls[0])


async def test_a_completions_prompt_is_guarded(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    async with door(serve, plane) as post:
        status, _ = await post(
            "/completions", {"model": "acme/small", "prompt": f"I am {MAIL}", "note": MAIL}
        )
    assert status == 200
    assert MAIL not in sent(plane.model.calls[0])


async def test_a_stored_response_keeps_no_text_that_was_masked(
    serve: Any, plane: Plane, sqlite_database: Database
) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    service = ResponsesService(ResponseStore(sqlite_database))
    ask = {"model": "acme/small", "instructions": f"Serve {MAIL}", "input": f"I am {MAIL}"}
    async with door(serve, plane, responses=service) as post:
        first = json.loads((await post("/responses", ask))[1])
        status, _ = await post(
            "/responses", {"model": "acme/small", "input": "Who?", "previous_response_id": first["id"]}
        )
    with sqlite_database.read() as connection:
        rows = str(connection.execute(sa.text("select * from responses")).all())
    assert status == 200
    assert MAIL not in sent(plane.model.calls[1])
    assert "I am [EMAIL]" in rows
    assert MAIL not in rows


async def test_texts_that_a_provider_embeds_go_masked(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(WATCHES)
    provider = with_claude(plane)
    async with door(serve, plane) as post:
        status, _ = await post("/embeddings", {"model": "claude/large", "input": [f"I am {MAIL}", ATTACK]})
    assert status == 200
    assert MAIL not in provider.embedded[0][0]
    assert provider.embedded[0][1] == ATTACK  # an embedding model follows no instructions


@pytest.mark.parametrize("role", ["user", "tool"])
async def test_an_attack_is_blocked_whoever_is_said_to_speak(serve: Any, plane: Plane, role: str) -> None:
    plane.guards_models_with(WATCHES)
    plane.model.says("Fine.")
    told = {"role": role, "content": ATTACK} | ({"tool_call_id": "call_1"} if role == "tool" else {})
    async with door(serve, plane) as post:
        status, body = await post("/chat/completions", {"model": "acme/small", "messages": [HI, CALLS, told]})
    assert (status, json.loads(body)["error"]["code"]) == (400, "content_policy_violation")
    assert not plane.model.calls


async def test_an_operators_instructions_may_instruct(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(WATCHES)
    plane.model.says("Fine.")
    messages = [{"role": "system", "content": ATTACK}, HI]
    async with door(serve, plane) as post:
        status, _ = await post("/chat/completions", {"model": "acme/small", "messages": messages})
    assert status == 200
    assert ATTACK in sent(plane.model.calls[0])


async def test_a_guards_refusal_is_not_tried_elsewhere(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(
        replace(BLOCKS, rails={**BLOCKS.rails, "input": (CheckRule("injection", "block", 0.5),)})
    )
    plane.model.plays(ProviderError("x", provider="acme", upstream_status=500))
    async with door(serve, plane) as post:
        status, _ = await post(
            "/chat/completions", {"model": "acme/small", "messages": [{"role": "user", "content": ATTACK}]}
        )
    assert (status, plane.model.calls) == (400, [])


async def test_a_request_in_which_nothing_is_masked_goes_as_it_came(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    body = {"model": "acme/small", "messages": [HI], "later": {"a": [1, "b"]}, "metadata": {"c": "d"}}
    async with door(serve, plane) as post:
        status, _ = await post("/chat/completions", body)
    assert status == 200
    assert plane.model.calls[0].source == body


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
async def test_images_by_address_are_handed_on_and_never_fetched(serve: Any, plane: Plane, path: str) -> None:
    plane.guards_models_with(MASKS)
    plane.model.says("Fine.")
    url = "http://127.0.0.1:9/never"
    parts: dict[str, dict[str, Any]] = {
        "chat/completions": {"type": "image_url", "image_url": {"url": url}},
        "responses": {"type": "input_image", "image_url": url},
        "messages": {"type": "image", "source": {"type": "url", "url": url}},
    }
    body = asked_by(path, False)
    body["input" if path == "responses" else "messages"] = [{"role": "user", "content": [parts[path]]}]
    async with door(serve, plane) as post:
        status, text = await post(f"/{path}", body)
    assert status == 200, text
    assert url in sent(plane.model.calls[0])
