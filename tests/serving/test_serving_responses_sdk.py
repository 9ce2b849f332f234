"""OpenAI's own SDK against responses rendered and kept here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from serving_door import served
from serving_responses_harness import ScriptedApp, broken, tool_call, words

from mainstay.core.database import Database
from mainstay.models.types import ChatMessage, Delta, Thinking, ToolCall
from mainstay.serving.responses import ResponsesService, ResponseStore

Scripts = list[list[Any]]
Start = Callable[[Scripts], Any]


@pytest.fixture
async def start(sqlite_database: Database) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(scripts: Scripts) -> tuple[ScriptedApp, AsyncOpenAI]:
            app = ScriptedApp(ResponsesService(ResponseStore(sqlite_database)), scripts)
            url = await stack.enter_async_context(served(app))
            client = AsyncOpenAI(base_url=url, api_key="key_1", max_retries=0)
            return app, await stack.enter_async_context(client)

        yield begin


THOUGHT = [Delta(reasoning="Hm."), Delta(thinking=Thinking("Hm.", encrypted="opaque"))]
EVERYTHING = [*THOUGHT, *words("Let ", "me look."), *tool_call("weather", '{"city":', '"Oslo"}')]


async def test_a_response_is_created_read_listed_and_deleted(start: Start):
    _, client = await start([words("Hel", "lo")])

    made = await client.responses.create(model="m", input="Hi", metadata={"a": "b"})
    again = await client.responses.retrieve(made.id)
    items = [item async for item in client.responses.input_items.list(made.id, order="asc")]
    await client.responses.delete(made.id)

    assert made.output_text == "Hello"
    assert again.to_dict() == made.to_dict()
    assert items[0].to_dict()["content"] == [{"type": "input_text", "text": "Hi"}]
    assert made.usage is not None
    assert (made.usage.input_tokens_details.cached_tokens, made.usage.total_tokens) == (4, 19)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_a_stream_accumulates_to_the_kept_response(start: Start):
    _, client = await start([EVERYTHING])

    async with client.responses.stream(model="m", input="Hi") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    kept = await client.responses.retrieve(final.id)

    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    arguments = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert text == kept.output_text == "Let me look."
    assert arguments[-1].snapshot == '{"city":"Oslo"}'
    assert [item.type for item in kept.output] == ["reasoning", "message", "function_call"]
    assert plain(final) == kept.to_dict()


def plain(response: Any) -> dict[str, Any]:
    """A response without what the SDK adds of its own reading."""
    body: dict[str, Any] = response.to_dict()
    for item in body["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content", []):
            part.pop("parsed", None)
    return body


async def test_structured_output_is_parsed(start: Start):
    class City(BaseModel):
        name: str
        people: int

    app, client = await start([words('{"name":"Oslo",', '"people":700000}')] * 2)

    whole = await client.responses.parse(model="m", input="Hi", text_format=City)
    async with client.responses.stream(model="m", input="Hi", text_format=City) as stream:
        final = await stream.get_final_response()

    assert whole.output_parsed == final.output_parsed == City(name="Oslo", people=700000)
    shape = app.requests[0].call.response_format
    assert shape is not None
    assert shape.schema is not None
    assert shape.schema["required"] == ["name", "people"]


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_loop_continues_the_previous_response(start: Start, streamed: bool):
    app, client = await start([EVERYTHING, words("It rains.")])

    async def ask(**body: Any) -> Any:
        if not streamed:
            return await client.responses.create(model="m", tools=[WEATHER], **body)
        events = [
            e async for e in await client.responses.create(model="m", tools=[WEATHER], stream=True, **body)
        ]
        return events[-1].response  # type: ignore[union-attr]

    first = await ask(input="Weather in Oslo?")
    call = first.output[-1]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = await ask(input=[output], previous_response_id=first.id)

    assert second.output_text == "It rains."
    assert app.requests[1].messages == (
        ChatMessage("user", "Weather in Oslo?"),
        ChatMessage(
            "assistant",
            "Let me look.",
            tool_calls=(ToolCall("call_a", "weather", '{"city":"Oslo"}'),),
            thinking=(Thinking("Hm.", encrypted="opaque"),),
        ),
        ChatMessage("tool", "rain", tool_call_id="call_a"),
    )


async def test_a_tool_loop_works_without_keeping_anything(start: Start):
    app, client = await start([EVERYTHING, words("It rains.")])
    common: Any = {"model": "m", "store": False, "include": ["reasoning.encrypted_content"]}

    first = await client.responses.parse(input="Weather?", tools=[WEATHER], **common)
    output = {"type": "function_call_output", "call_id": "call_a", "output": "rain"}
    context: Any = [{"role": "user", "content": "Weather?"}, *first.output, output]
    second = await client.responses.create(input=context, **common)

    assert second.output_text == "It rains."
    assert second.to_dict()["store"] is False
    assert app.requests[1].messages[1].thinking == (Thinking("Hm.", encrypted="opaque"),)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)


async def test_a_broken_stream_raises_in_the_sdk(start: Start):
    _, client = await start([[*words("Hel")[:1], broken()]])
    stream = await client.responses.create(model="m", input="Hi", stream=True)
    seen: list[str] = []

    async def read() -> None:
        async for event in stream:
            seen.append(event.type)

    with pytest.raises(openai.APIError, match="stopped half-way"):
        await read()

    assert seen[-1] == "response.output_text.delta"


async def test_mistakes_and_cancelling_are_bad_requests(start: Start):
    _, client = await start([words("Hello")])
    made = await client.responses.create(model="m", input="Hi")

    with pytest.raises(openai.BadRequestError) as tool:
        await client.responses.create(model="m", input="Hi", tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(model="m", input="Hi", previous_response_id="resp_none")

    assert tool.value.param == "tools[0].type"
    assert (missing.value.code, missing.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
