"""The HTTP client that providers are reached with."""

from mainstay.models.http.pool import OriginCounts
from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.http.types import (
    HttpBroken,
    HttpClient,
    HttpError,
    HttpResponse,
    HttpTimeout,
    HttpUnreachable,
)

__all__ = [
    "HttpBroken",
    "HttpClient",
    "HttpError",
    "HttpResponse",
    "HttpTimeout",
    "HttpUnreachable",
    "OriginCounts",
    "PooledHttpClient",
]
