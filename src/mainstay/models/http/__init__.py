"""The HTTP client that providers are reached with."""

from mainstay.models.http.types import (
    HttpBroken,
    HttpClient,
    HttpError,
    HttpResponse,
    HttpTimeout,
    HttpUnreachable,
)

__all__ = ["HttpBroken", "HttpClient", "HttpError", "HttpResponse", "HttpTimeout", "HttpUnreachable"]
