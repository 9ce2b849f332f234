"""What a response says of its limits: the `x-ratelimit-*` headers that OpenAI SDKs know, and the budget's rest."""

from __future__ import annotations

from mainstay.core.errors import MainstayError
from mainstay.core.money import usd_text
from mainstay.serving.errors import RateLimited, TokensLimited
from mainstay.serving.limits.types import Hold
from mainstay.serving.types import RateState


def limit_headers(hold: Hold) -> dict[str, str]:
    """Of an admitted request. `reset` is how long until the whole minute is back, e.g. `1.500s`."""
    headers: dict[str, str] = {}
    if hold.rate is not None:
        _add(headers, "requests", hold.rate)
    if hold.token_rate is not None:
        _add(headers, "tokens", hold.token_rate)
    if hold.remaining_nusd is not None:
        headers["x-mainstay-budget-remaining-usd"] = usd_text(hold.remaining_nusd)
    return headers


def refusal_headers(error: MainstayError) -> dict[str, str]:
    """Of a request that a rate refused; empty for every other error."""
    headers: dict[str, str] = {}
    if isinstance(error, RateLimited) and error.rate is not None:
        _add(headers, "requests", error.rate)
    if isinstance(error, TokensLimited) and error.token_rate is not None:
        _add(headers, "tokens", error.token_rate)
    return headers


def _add(headers: dict[str, str], what: str, state: RateState) -> None:
    headers[f"x-ratelimit-limit-{what}"] = str(state.limit)
    headers[f"x-ratelimit-remaining-{what}"] = str(state.remaining)
    headers[f"x-ratelimit-reset-{what}"] = f"{state.reset_s:.3f}s"
