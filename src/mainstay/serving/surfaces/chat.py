"""OpenAI's `POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.chat_body import choice_body, usage_body
from mainstay.serving.surfaces.chat_read import read_chat_request
from mainstay.serving.surfaces.chat_stream import ChatStream
from mainstay.serving.surfaces.common import answering_name, extension, spliced
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Final, SurfaceName


class ChatSurface:
    """See Surface. What is Mainstay's own to say about an answer is its `mainstay` member."""

    name: SurfaceName = "chat"

    def read(self, body: Mapping[str, Any]) -> ChatRequest:
        return read_chat_request(body)

    def whole(self, final: Final, request: ChatRequest, ids: Ids) -> bytes:
        legacy = bool(request.hints.get("legacy_functions"))
        if final.raw is not None and not legacy:
            return spliced(final.raw, "mainstay", extension(final))
        return orjson.dumps(
            {
                "id": f"chatcmpl-{ids.trace_id}",
                "object": "chat.completion",
                "created": ids.created_s,
                "model": answering_name(final, request),
                "choices": [choice_body(index, choice, legacy) for index, choice in enumerate(final.choices)],
                "usage": usage_body(final.usage),
                "mainstay": final.extension(),
            }
        )

    def stream(self, request: ChatRequest, ids: Ids) -> ChatStream:
        return ChatStream(request, f"chatcmpl-{ids.trace_id}", ids.created_s)

    def error_body(self, reply: ErrorReply) -> dict[str, Any]:
        return reply.body
