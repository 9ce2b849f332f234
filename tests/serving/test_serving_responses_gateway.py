"""Responses through the real gateway and pipeline, kept in a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from serving_door import served
from serving_plane import Plane, api_key

from mainstay.core.database import Database
from mainstay.models.types import ChatMessage
from mainstay.serving.responses import ResponsesService, ResponseStore


@pytest.fixture
async def url(plane: Plane, sqlite_database: Database) -> AsyncIterator[str]:
    plane.knows(api_key("ms-good"), api_key("ms-other"))
    service = ResponsesService(ResponseStore(sqlite_database))
    async with served(plane.gateway(responses=service)) as base:
        yield base


def client(url: str, token: str = "ms-good") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0)


async def test_a_conversation_goes_on_through_the_gateway(plane: Plane, url: str):
    plane.model.says("Hello", " Ada.")
    async with client(url) as sdk:
        first = await sdk.responses.create(model="acme/small", input="I am Ada.")
        events = [
            event
            async for event in await sdk.responses.create(
                model="acme/small", input="Who am I?", previous_response_id=first.id, stream=True
            )
        ]
        kept = await sdk.responses.retrieve(events[-1].response.id)  # type: ignore[union-attr]

    assert [event.type for event in events][-1] == "response.completed"
    assert kept.to_dict() == events[-1].response.to_dict()  # type: ignore[union-attr]
    assert plane.model.calls[-1].messages == (
        ChatMessage("user", "I am Ada."),
        ChatMessage("assistant", "Hello Ada."),
        ChatMessage("user", "Who am I?"),
    )


async def test_requests_of_one_distributed_trace_are_kept_apart(plane: Plane, url: str):
    plane.model.says("Hello")
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with client(url) as sdk:
        made = [
            await sdk.responses.create(model="acme/small", input="Hi", extra_headers=headers)
            for _ in range(2)
        ]
        kept = [await sdk.responses.retrieve(response.id) for response in made]

    assert [response.to_dict() for response in kept] == [response.to_dict() for response in made]
    assert all(response.id.startswith(f"resp_{'a' * 32}") for response in made)


async def test_another_key_neither_sees_nor_continues_a_response(plane: Plane, url: str):
    plane.model.says("Hello")
    async with client(url) as sdk, client(url, "ms-other") as other:
        made = await sdk.responses.create(model="acme/small", input="Hi")

        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.create(model="acme/small", input="Hi", previous_response_id=made.id)
