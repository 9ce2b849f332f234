"""The client on the hot path: HTTP/1.1 over asyncio protocols, pooled by origin."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

from mainstay.models.http.connection import StaleConnection
from mainstay.models.http.head import Target, make_target, render
from mainstay.models.http.pool import Origin, OriginCounts, OriginPool
from mainstay.models.http.response import PooledResponse

_TARGETS_MAX: Final = 4096
_Pools = dict[Origin, OriginPool]


class PooledHttpClient:
    """See HttpClient. One object serves any event loop: each gets its own connections.

    `tls` replaces the default context, which checks certificates against the system's authorities.
    `connections_max` is by origin; a caller waits for a free one no longer than its `connect_timeout_s`.
    Answers are read ahead up to `buffer_bytes` and one more read of the socket, then the server has to wait.
    A header we set ourselves (Host, Content-Length, User-Agent, ...) is refused with ValueError.
    """

    def __init__(
        self,
        *,
        connections_max: int = 512,
        idle_s: float = 60.0,
        buffer_bytes: int = 256 << 10,
        headers_max_bytes: int = 64 << 10,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._buffer_bytes = buffer_bytes
        self._headers_max_bytes = headers_max_bytes
        self._tls = tls
        self._targets: dict[tuple[str, str], Target] = {}
        self._by_loop: dict[asyncio.AbstractEventLoop, _Pools] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        connect_timeout_s: float = 5.0,
        head_timeout_s: float | None = None,
    ) -> PooledResponse:
        """Send and wait for the head. Raises HttpError; ValueError for what must not be sent.

        A connection that the server closed while idle is replaced and the request sent once more.
        """
        target = self._targets.get((method, url)) or self._target(method, url)
        head = render(target, headers, len(body))
        pools = self._by_loop.get(asyncio.get_running_loop())
        pool = pools.get(target.origin) if pools is not None else None
        if pool is None:
            pool = self._pool(target.origin)
        connection = pool.idle.pop() if pool.idle else await pool.acquire(connect_timeout_s)
        try:
            return await connection.exchange(head, body, method == "HEAD", head_timeout_s)
        except StaleConnection:
            connection = await pool.acquire(connect_timeout_s, fresh=True)
            return await connection.exchange(head, body, method == "HEAD", head_timeout_s)

    def _target(self, method: str, url: str) -> Target:
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        target = self._targets[method, url] = make_target(method, url)
        return target

    def _pool(self, origin: Origin) -> OriginPool:
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for ended in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[ended]
        pools = self._by_loop.setdefault(loop, {})
        pool = pools[origin] = OriginPool(
            origin,
            self._context() if origin.scheme == "https" else None,
            connections_max=self._connections_max,
            idle_s=self._idle_s,
            buffer_bytes=self._buffer_bytes,
            headers_max_bytes=self._headers_max_bytes,
        )
        return pool

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def origins(self) -> dict[str, OriginCounts]:
        """Counts by `scheme://host:port`, over all event loops."""
        sums: dict[str, OriginCounts] = {}
        for pools in list(self._by_loop.values()):
            for (scheme, host, port), pool in list(pools.items()):
                name = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
                one, so_far = pool.counts(), sums.get(name, OriginCounts(0, 0, 0))
                sums[name] = OriginCounts(
                    so_far.open + one.open, so_far.idle + one.idle, so_far.waiting + one.waiting
                )
        return sums

    async def close(self) -> None:
        """Close every connection; requests under way fail. A later request opens new ones."""
        loop = asyncio.get_running_loop()
        by_loop, self._by_loop = self._by_loop, {}
        for other, pools in by_loop.items():
            if other is not loop and not other.is_closed():
                for pool in pools.values():
                    other.call_soon_threadsafe(pool.shut)
        for pool in by_loop.get(loop, {}).values():
            await pool.close()
