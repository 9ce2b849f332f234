"""Calls as the Gemini API gets them, for the tests of its requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.gemini_wire import encode
from mainstay.models.types import MediaPart, Tool, ToolCall

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Says it", SCHEMA)
ASKED = ToolCall("fc_1", "weather", '{"city": "Ghent"}')
PNG = MediaPart("image", media_type="image/png", data="cG5n")


def call(*messages: ChatMessage, model: str = "gemini-2.5-flash", **more: Any) -> ChatCall:
    return ChatCall(model=model, messages=messages or (ChatMessage("user", "Hi"),), **more)


def body(chat: ChatCall, *, vertex: bool = False) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(encode(chat, "gemini", vertex=vertex))
    return written


def config(**more: Any) -> dict[str, Any]:
    generation: dict[str, Any] = body(call(**more)).get("generationConfig", {})
    return generation


def contents(*messages: ChatMessage, model: str = "gemini-2.5-flash", vertex: bool = False) -> list[Any]:
    written: list[Any] = body(call(*messages, model=model), vertex=vertex)["contents"]
    return written


def refusal(chat: ChatCall, *, vertex: bool = False) -> str:
    with pytest.raises(ProviderBadRequest) as caught:
        encode(chat, "gemini", vertex=vertex)
    return str(caught.value)
