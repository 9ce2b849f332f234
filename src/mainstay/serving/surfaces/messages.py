"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`.

Citations of an app's answer stand in the `mainstay` member: Anthropic's own citations point into documents
of the request, where an app's sources are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mainstay.models.types import Choice
from mainstay.serving.errors import ErrorReply
from mainstay.serving.surfaces.common import answering_name, extension, spliced
from mainstay.serving.surfaces.messages_body import content_of, error_body, stop_of, usage_body
from mainstay.serving.surfaces.messages_read import read_messages_request
from mainstay.serving.surfaces.messages_stream import MessagesStream
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest, Final, SurfaceName


class MessagesSurface:
    """See Surface."""

    name: SurfaceName = "messages"

    def read(self, body: Mapping[str, Any]) -> ChatRequest:
        return read_messages_request(body)

    def read_count(self, body: Mapping[str, Any]) -> ChatRequest:
        """The request of `count_tokens`: as `read`, but nothing is to be generated."""
        return read_messages_request(body, count_only=True)

    def whole(self, final: Final, request: ChatRequest, ids: Ids) -> bytes:
        if final.raw is not None:
            return spliced(final.raw, "mainstay", extension(final))
        choice = final.choices[0] if final.choices else Choice()
        return orjson.dumps(
            {
                "id": f"msg_{ids.trace_id}",
                "type": "message",
                "role": "assistant",
                "model": answering_name(final, request),
                "content": content_of(choice),
                **stop_of(choice),
                "usage": usage_body(final.usage),
                "mainstay": final.extension(),
            }
        )

    def stream(self, request: ChatRequest, ids: Ids) -> MessagesStream:
        return MessagesStream(request, ids)

    def error_body(self, reply: ErrorReply) -> dict[str, Any]:
        return error_body(reply)
