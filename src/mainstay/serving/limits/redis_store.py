"""A Redis server as the limits see it: batches of operations, each batch one atomic round trip."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.core.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from redis.asyncio import Redis

Operation = list[Any]
Result = list[Any]


class StoreFailed(Exception):
    """Redis could not be reached, was too slow, or answered with an error."""


class RedisStore:
    """Runs `limits.lua`. Keys begin with `{prefix}:`, one hash tag, so that a cluster keeps them together."""

    def __init__(self, url: str, prefix: str, timeout_s: float, hold_ttl_s: float) -> None:
        self._client = _connect(url, timeout_s)
        self._key = f"{{{prefix}}}:holds"
        self._ttl_ms = int(hold_ttl_s * 1000)
        self._source = resources.files("mainstay.serving.limits").joinpath("limits.lua").read_text("utf-8")
        self._digest: str | None = None

    async def exchange(self, at_us: int, operations: list[Operation]) -> tuple[int, list[Result]]:
        """(Redis's clock, or `at_us` unless that is 0; the results in order). Raises StoreFailed."""
        from redis.exceptions import RedisError

        batch = msgspec.msgpack.encode([at_us, self._ttl_ms, operations])
        try:
            answer = msgspec.msgpack.decode(await self._run(batch))
        except (RedisError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise StoreFailed(str(error) or type(error).__name__) from error
        return int(answer[0]), list(answer[1])

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, batch: bytes) -> bytes:
        from redis.exceptions import NoScriptError

        if self._digest is None:
            self._digest = str(await self._client.script_load(self._source))
        try:
            return await self._evaluate(batch)
        except NoScriptError:  # Redis started anew, or its scripts were flushed
            self._digest = str(await self._client.script_load(self._source))
            return await self._evaluate(batch)

    async def _evaluate(self, batch: bytes) -> bytes:
        assert self._digest is not None
        client: Any = self._client
        answer: bytes = await client.execute_command("EVALSHA", self._digest, 1, self._key, batch)
        return answer


def _connect(url: str, timeout_s: float) -> Redis:
    """A client that retries nothing by itself: the limiter knows what may be repeated."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise MissingExtra("Sharing limits through Redis", "redis") from error
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
        )
    except ValueError as error:
        raise ConfigError(
            f"This is no address of a Redis server: {error}.", fix="Write it like redis://localhost:6379/0."
        ) from error
