"""The head of a request: where it goes and what it says, with nothing smuggled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from mainstay import __version__
from mainstay.models.http.pool import Origin

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(r"[!-~]*")
_OURS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "accept-encoding", "user-agent",
        "expect", "upgrade", "te", "trailer", "keep-alive",
    }
)  # fmt: skip
_PORTS: Final = {"http": 80, "https": 443}


class Target(NamedTuple):
    origin: Origin
    start: str
    """Request line and our own headers."""
    always_length: bool
    """Content-Length is sent though the body is empty."""


def make_target(method: str, url: str) -> Target:
    """Raises ValueError: no http(s) URL with a host, credentials in it, or characters a URL must not have."""
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(url.partition("#")[0]):
        raise ValueError("the method or URL holds characters that are not allowed there")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("the URL must be http:// or https:// with a host and without credentials")
    host = parts.hostname
    port = parts.port or _PORTS[parts.scheme]
    named = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        named += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    start = (
        f"{method} {path} HTTP/1.1\r\nHost: {named}\r\nUser-Agent: mainstay/{__version__}\r\n"
        "Accept-Encoding: identity\r\n"
    )
    return Target(Origin(parts.scheme, host, port), start, method in ("POST", "PUT", "PATCH"))


def render(target: Target, headers: Mapping[str, str], body_bytes: int) -> bytes:
    """Raises ValueError for a header that would break the head, or that is ours to set."""
    lines = "".join([_start(name) + value + "\r\n" for name, value in headers.items()])
    count = len(headers)
    if lines.count("\r") != count or lines.count("\n") != count or "\0" in lines:
        raise ValueError("a header value holds a line end or a zero byte")
    if body_bytes or target.always_length:
        lines = f"{lines}Content-Length: {body_bytes}\r\n"
    return f"{target.start}{lines}\r\n".encode("latin-1")


@lru_cache(maxsize=512)
def _start(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no header name")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name!r} is set by the client itself")
    return f"{name}: "
