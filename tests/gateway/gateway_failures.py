"""How failures reach clients: what goes wrong, and the exception that both official SDKs raise of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from support.openai_server import Reply

KEY: Final = "sk-upstream"


@dataclass(frozen=True)
class Failure:
    """How clients are told: both SDKs' exception of this name, with this status, `code`, and Anthropic's error type.

    `reply`: what the vendor answers; None for a refusal of the gateway's own. `what` tells it to people.
    """

    what: str
    reply: Reply | None
    exception: str
    status: int
    code: str
    retried: bool
    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)


def answers(status: int, error: Mapping[str, Any] | None = None, **headers: str) -> Reply:
    return Reply(status=status, error=error, headers={k.replace("_", "-"): v for k, v in headers.items()})


FAILURES: Final = {
    "bad request": Failure(
        'The provider refuses the request (400)',
        answers(400, {"message": "temperature is too high", "type": "invalid_request_error"}),
        "BadRequestError", 400, "invalid_request_error", False, kind="invalid_request_error",
    ),
    "too long": Failure(
        'The prompt is too long for the model',
        answers(400, {"message": "too many tokens", "code": "context_length_exceeded"}),
        "BadRequestError", 400, "context_length_exceeded", False, kind="invalid_request_error",
    ),
    "our key is wrong": Failure(
        "The provider refuses the gateway's key (401)",
        answers(401, {"message": f"Incorrect API key provided: {KEY}"}),
        "InternalServerError", 502, "upstream_credentials_exhausted", False, kind="api_error",
    ),
    "our credit is gone": Failure(
        'The account at the provider has no credit (429 `insufficient_quota`)',
        answers(429, {"message": "no credit", "code": "insufficient_quota"}),
        "InternalServerError", 502, "upstream_credentials_exhausted", False, kind="api_error",
    ),
    "no such model": Failure(
        'The provider does not know the model (404)',
        answers(404, {"message": "no such model", "code": "model_not_found"}),
        "NotFoundError", 404, "model_not_found", False, kind="not_found_error",
    ),
    "slow down": Failure(
        'The provider asks to slow down (429, `Retry-After`)',
        answers(429, {"message": "slow down"}, Retry_After="7"),
        "RateLimitError", 429, "rate_limit_exceeded", True, kind="rate_limit_error",
        headers={"retry-after": "7", "retry-after-ms": "7000"},
    ),
    "broken": Failure(
        'The provider fails (500)',
        answers(500, {"message": "boom"}),
        "InternalServerError", 502, "upstream_failed", True, kind="api_error",
    ),
    "overloaded": Failure(
        'The provider is overloaded (503)',
        answers(503, {"message": "overloaded"}),
        "InternalServerError", 502, "upstream_failed", True, kind="api_error",
    ),
    "nonsense": Failure(
        "The provider's answer makes no sense",
        Reply(whole={"object": "chat.completion"}, raw=b'data: {"choi'),
        "InternalServerError", 502, "upstream_failed", True, kind="api_error",
    ),
}  # fmt: skip

REFUSALS: Final = {
    "no such key": Failure(
        "No such key, or one that is revoked", None, "AuthenticationError", 401, "invalid_api_key", False, "authentication_error",
    ),
    "not for this key": Failure(
        "The key may not use this name", None, "PermissionDeniedError", 403, "model_not_allowed", False, "permission_error",
    ),
    "no such name": Failure(
        "No app, route or model has this name", None, "NotFoundError", 404, "model_not_found", False, "not_found_error",
    ),
    "too many a minute": Failure(
        "More requests or tokens a minute than a limit allows", None, "RateLimitError", 429, "rate_limit_exceeded", True, "rate_limit_error",
    ),
    "budget spent": Failure(
        "A budget's window is spent", None, "RateLimitError", 429, "insufficient_quota", False, "rate_limit_error",
    ),
    "dearer than its budget": Failure(
        "One request is dearer than a whole budget", None, "BadRequestError", 400, "request_exceeds_budget", False, "invalid_request_error",
    ),
}  # fmt: skip
