"""What every surface is: it reads a request body into the normal form and renders answers and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mainstay.core.values import value
from mainstay.models.types import Delta
from mainstay.serving.errors import ErrorReply
from mainstay.serving.types import ChatRequest, Final, Started, SurfaceName


@value
class Ids:
    """What an answer is called: `trace_id` (32 hex digits) names it on every surface; `created_s` since 1970."""

    request_id: str
    trace_id: str
    created_s: int


class StreamRenderer(Protocol):
    """Writes one answer as server-sent events. Every method returns whole frames (`event:`, `data:`, blank
    line) as bytes, several joined or none (`b""`). The caller relays them in order, without looking inside."""

    ping: bytes
    """A frame that means nothing, sent into a silence so that proxies keep the connection."""

    def start(self, started: Started) -> bytes:
        """What goes before the first delta. Called once, together with the first delta."""
        ...

    def delta(self, delta: Delta) -> bytes: ...

    def end(self, final: Final) -> bytes:
        """Everything after the last delta, with usage and the terminal event (`[DONE]`, `message_stop`, …)."""
        ...

    def error(self, reply: ErrorReply) -> bytes:
        """The failure of an answer that had begun; no terminal event follows, so that it cannot look complete."""
        ...


class Surface(Protocol):
    """One wire format. Stateless; one object serves all requests."""

    name: SurfaceName

    def read(self, body: Mapping[str, Any]) -> ChatRequest:
        """Validate. Raises BadField naming the field in this surface's own terms; nothing meaningful is dropped."""
        ...

    def whole(self, final: Final, request: ChatRequest, ids: Ids) -> bytes:
        """The body of an answer that was not streamed, JSON."""
        ...

    def stream(self, request: ChatRequest, ids: Ids) -> StreamRenderer: ...

    def error_body(self, reply: ErrorReply) -> dict[str, Any]:
        """The JSON body of a refusal or failure, in this surface's own error form."""
        ...
