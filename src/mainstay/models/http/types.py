"""What providers need of an HTTP client: pooled requests with bounded, unhurried answers.

HttpError
├── HttpUnreachable   no connection: refused, no such host, TLS failed, connect timed out
├── HttpTimeout       connected, but nothing came in time
└── HttpBroken        the connection broke or the answer is no valid HTTP; `begun` says if any of it had come
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class HttpError(Exception):
    """Base of transport failures. The text says what happened, without addresses or secrets."""


class HttpUnreachable(HttpError):
    pass


class HttpTimeout(HttpError):
    pass


class HttpBroken(HttpError):
    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class HttpResponse(Protocol):
    """An answer whose head has come. Read it to its end or `close` it; both are safe to do twice."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a repeated one the last."""

    async def next_chunk(self, timeout_s: float | None = None) -> bytes:
        """The next bytes as they come; `b""` at the end. Raises HttpTimeout after that much silence, HttpBroken."""
        ...

    async def read(self, limit_bytes: int, timeout_s: float | None = None) -> bytes:
        """The whole body. `timeout_s` bounds all of it. Raises HttpTimeout, HttpBroken (also beyond the limit)."""
        ...

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else cut it at once."""
        ...


class HttpClient(Protocol):
    """One pool of connections. Uses no proxy and follows no redirect, so that a key goes nowhere else."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        connect_timeout_s: float = 5.0,
        head_timeout_s: float | None = None,
    ) -> HttpResponse:
        """Send and wait for the head of the answer. Cancelling cuts the connection. Raises HttpError."""
        ...

    async def close(self) -> None: ...
