"""Nothing is shared but the Redis server."""

from support.redis_server import shared_redis_server

__all__ = ["shared_redis_server"]
