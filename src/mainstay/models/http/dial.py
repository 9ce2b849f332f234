"""Opening a socket to a host that may have several addresses (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio import staggered
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain, zip_longest
from typing import Final, TypeVar

from mainstay.models.http.types import HttpUnreachable

P = TypeVar("P", bound=asyncio.Protocol)
_NEXT_ADDRESS_S: Final = 0.25
_REASONS: Final = (
    (socket.gaierror, "no such host"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "closed while connecting"),
)
_Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def open_connection(
    factory: Callable[[], P], host: str, port: int, context: ssl.SSLContext | None, timeout_s: float
) -> P:
    """Name, socket and TLS within `timeout_s`. Raises HttpUnreachable, whose text names neither host nor address."""
    loop = asyncio.get_running_loop()
    name = host if context is not None else None
    try:
        async with asyncio.timeout(timeout_s):
            opened = await _open_socket(loop, host, port)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, protocol = await loop.create_connection(
                factory, sock=opened, ssl=context, server_hostname=name
            )
            return protocol
    except (OSError, TimeoutError) as error:
        raise HttpUnreachable(_reason(error, timeout_s)) from error


async def _open_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    addresses = await _addresses(loop, host, port)
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    attempts: list[Callable[[], Awaitable[socket.socket]]] = [
        partial(_connect, loop, address) for address in addresses
    ]
    winner: socket.socket | None
    winner, _, failures = await staggered.staggered_race(attempts, _NEXT_ADDRESS_S)
    if winner is None:
        raise next(failure for failure in failures if failure is not None)
    return winner


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
    """Families in turn, so that one that leads nowhere costs a quarter of a second."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name: to be looked up without holding up the loop
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[socket.AddressFamily, list[_Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))
    return [address for address in chain(*zip_longest(*families.values())) if address is not None]


async def _connect(loop: asyncio.AbstractEventLoop, address: _Address) -> socket.socket:
    opened = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        await loop.sock_connect(opened, address[1])
    except BaseException:
        opened.close()
        raise
    return opened


def _reason(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"timed out after {timeout_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'protocol error').replace('_', ' ').lower()}"
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) else "no connection"
