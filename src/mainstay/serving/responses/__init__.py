"""Kept responses: what `GET /v1/responses/{id}` shows and `previous_response_id` continues.

`ResponsesService` is what a gateway calls; `ResponseStore` is its table, whose `prune` a janitor calls.
"""

from mainstay.serving.responses.service import (
    ResponseNotFound,
    ResponsesService,
)
from mainstay.serving.responses.store import ResponseStore, StoredResponse

__all__ = [
    "ResponseNotFound",
    "ResponseStore",
    "ResponsesService",
    "StoredResponse",
]
