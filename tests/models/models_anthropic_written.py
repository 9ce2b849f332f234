"""Calls as Anthropic gets them; their shape is checked against the official SDK's own types."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from anthropic.types import ContentBlockParam, MessageParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers.anthropic_wire import encode

PDF = b64encode(b"%PDF-1.7").decode()
PNG = b64encode(b"\x89PNG").decode()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
USER = ChatMessage("user", "Hi")


def body(*messages: ChatMessage, **more: Any) -> dict[str, Any]:
    call = ChatCall(model="m", messages=messages or (USER,), **more)
    written: dict[str, Any] = json.loads(encode(call, "claude", stream=False))
    check(written)
    return written


def check(written: dict[str, Any]) -> None:
    """By the SDK's types; lists in them are lazy, so that their items are checked apart."""
    PARAMS.validate_python(written)
    for tool in written.get("tools", []):
        TOOL.validate_python(tool)
    for turn in written["messages"]:
        MESSAGE.validate_python(turn)
    blocks = [block for turn in written["messages"] for block in turn["content"]]
    results = [inner for block in blocks for inner in block.get("content", [])]
    for block in blocks + results:
        BLOCK.validate_python(block)


def refusal(*messages: ChatMessage, **more: Any) -> str:
    with pytest.raises(ProviderBadRequest) as caught:
        body(*messages, **more)
    return caught.value.message


PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
MESSAGE: TypeAdapter[Any] = TypeAdapter(MessageParam)
BLOCK: TypeAdapter[Any] = TypeAdapter(ContentBlockParam)
TOOL: TypeAdapter[Any] = TypeAdapter(ToolParam)
