"""The gateway as Anthropic's own SDK sees it, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from serving_plane import Plane

from mainstay.models import ProviderError
from mainstay.models.types import Delta, ToolCallDelta, Usage

ASK: Any = {"model": "acme/small", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def client(serve: Any, plane: Plane, token: str = "ms-good") -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = await serve(plane.gateway())
    async with anthropic.AsyncAnthropic(
        base_url=url.removesuffix("/v1"), api_key=token, max_retries=0
    ) as sdk:
        yield sdk


async def test_a_model_of_any_kind_answers_a_message(serve: Any, plane: Plane) -> None:
    plane.model.says("Hel", "lo.", usage=Usage(10, 5))
    async with client(serve, plane) as sdk:
        message = await sdk.messages.create(**ASK, system="Be brief.")
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello."
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == (
        "end_turn",
        10,
        5,
    )
    assert [m.role for m in plane.model.calls[0].messages] == ["system", "user"]


async def test_a_message_is_streamed(serve: Any, plane: Plane) -> None:
    plane.model.says("Hel", "lo.", usage=Usage(10, 5))
    async with client(serve, plane) as sdk, sdk.messages.stream(**ASK) as stream:
        said = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(said) == "Hello."
    assert message.usage.input_tokens == 10


async def test_an_agent_gets_its_parallel_tool_calls(serve: Any, plane: Plane) -> None:
    plane.model.plays(
        Delta(text="Let me see."),
        Delta(tool_calls=(ToolCallDelta(0, "call_a", "weather"),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='{"city":"Bern"}'),)),
        Delta(tool_calls=(ToolCallDelta(1, "call_b", "clock", "{}"),)),
        Delta(finish_reason="tool_calls", usage=Usage(10, 5)),
    )
    tools: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("weather", "clock")]
    async with client(serve, plane) as sdk, sdk.messages.stream(**ASK, tools=tools) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "Bern"}, {}]
    assert [tool.name for tool in plane.model.calls[0].tools] == ["weather", "clock"]


async def test_a_stream_that_breaks_raises_in_the_sdk(serve: Any, plane: Plane) -> None:
    plane.model.plays(Delta(text="Hel"), ProviderError("It broke.", provider="scripted"))
    async with client(serve, plane) as sdk:
        with pytest.raises(anthropic.APIStatusError, match="It broke"):
            async with sdk.messages.stream(**ASK) as stream:
                await stream.get_final_message()


async def test_a_wrong_key_is_told_in_anthropics_form(serve: Any, plane: Plane) -> None:
    async with client(serve, plane, token="ms-bad") as sdk:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await sdk.messages.create(**ASK)
    assert caught.value.body["type"] == "error"  # type: ignore[index]
    assert caught.value.body["request_id"] == caught.value.request_id  # type: ignore[index]


async def test_a_wrong_field_is_named_in_anthropics_form(serve: Any, plane: Plane) -> None:
    async with client(serve, plane) as sdk:
        with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]\.type"):
            await sdk.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert plane.model.calls == []


async def test_a_legacy_completion_is_answered(serve: Any, plane: Plane) -> None:
    plane.model.says("a ", "time.")
    url = await serve(plane.gateway())
    async with openai.AsyncOpenAI(base_url=url, api_key="ms-good", max_retries=0) as sdk:
        whole = await sdk.completions.create(model="acme/small", prompt="Once upon")
        stream = await sdk.completions.create(model="acme/small", prompt="Once upon", stream=True)
        said = [choice.text async for chunk in stream for choice in chunk.choices]
    assert whole.choices[0].text == "".join(said) == "a time."
