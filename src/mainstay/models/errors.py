"""What can go wrong between us and a model.

    UnknownModel                404 model_not_found            no such name here
    ProviderError               502 provider_error             the provider failed (5xx); may be tried again
    ├── ProviderAuthFailed      502 provider_auth_failed       our key is wrong, revoked or not allowed
    ├── ProviderQuotaExhausted  502 provider_quota_exhausted   our account there is out of credit
    ├── ProviderRateLimited     429 rate_limit_exceeded        slow down; `retry_after_s` when it said so
    ├── ContextTooLong          400 context_length_exceeded    the prompt does not fit the model
    ├── ProviderBadRequest      400 invalid_request_error      the provider does not accept this request
    ├── ProviderModelMissing    404 model_not_found            the provider does not know the model
    ├── ProviderUnreachable     502 provider_unreachable       no connection, or it broke before an answer
    ├── ProviderTimeout         504 provider_timeout           the deadline or the idle limit passed
    ├── ProviderStreamBroken    502 provider_stream_broken     the answer stopped half-way or made no sense
    └── EngineFailed            503 engine_failed              the local engine could not load or run a model

`status` is what our own client is told; `upstream_status` and `upstream_code` are what the provider said (a code
`content_filter`: its moderation refused the request). `retryable` says
whether the same request may succeed later or elsewhere; whoever calls decides if and when.
"""

from __future__ import annotations

from collections.abc import Iterable

from mainstay.core.errors import MainstayError, NotFound, did_you_mean


class UnknownModel(NotFound):
    """No app, route or model has this name. `fix` names the nearest, or how to make the name known.

    `how_to_know` is the latter alone: a key to set, a model to install; None when a name is just unknown.
    """

    code = "model_not_found"

    def __init__(self, name: str, known: Iterable[str], fix: str | None = None) -> None:
        self.how_to_know = fix
        super().__init__(
            f"No app, route or model is called {name!r}.",
            fix=fix or f"{did_you_mean(name, known)} `mainstay models list` shows all.",
            model=name,
        )


class ProviderError(MainstayError):
    """Base of all failures of a provider. `retry_after_s` is set when the provider named a wait."""

    status, code, type = 502, "provider_error", "server_error"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        fix: str | None = None,
        upstream_status: int | None = None,
        retry_after_s: float | None = None,
        upstream_code: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix, provider=provider, upstream_status=upstream_status)
        self.provider = provider
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code
        self.retry_after_s = retry_after_s


class ProviderAuthFailed(ProviderError):
    code = "provider_auth_failed"
    retryable = False


class ProviderQuotaExhausted(ProviderError):
    code = "provider_quota_exhausted"
    retryable = False


class ProviderRateLimited(ProviderError):
    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


class ContextTooLong(ProviderError):
    status, code, type = 400, "context_length_exceeded", "invalid_request_error"
    retryable = False


class ProviderBadRequest(ProviderError):
    status, code, type = 400, "invalid_request_error", "invalid_request_error"
    retryable = False


class ProviderModelMissing(ProviderError):
    status, code, type = 404, "model_not_found", "not_found_error"
    retryable = False


class ProviderUnreachable(ProviderError):
    code = "provider_unreachable"


class ProviderTimeout(ProviderError):
    status, code = 504, "provider_timeout"


class ProviderStreamBroken(ProviderError):
    code = "provider_stream_broken"


class EngineFailed(ProviderError):
    status, code, type = 503, "engine_failed", "service_unavailable"
