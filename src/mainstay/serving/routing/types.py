"""Nouns of routing: the plan of one request, and who is told of its attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from mainstay.core.errors import MainstayError
from mainstay.models.types import Capability, ChatCall, Completion, Route, Target


@dataclass(slots=True)
class Plan:
    """What one request's attempts share. `ends_at_s` is of the event loop's clock.

    `input_tokens` is a likely count, for context lengths and the cheapest target. `sticky_key` names the
    conversation or its first messages. `attempts` is filled while the request runs.
    `client_retry`: how often the client's SDK has sent this request before (`x-stainless-retry-count`); each
    takes one attempt off the budget, so that retries of retries do not multiply.
    """

    route: Route
    ends_at_s: float
    needs: frozenset[Capability]
    input_tokens: int
    max_tokens: int | None = None
    sticky_key: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    client_retry: int = 0

    @property
    def tokens(self) -> int:
        """What the request takes of a context, most likely."""
        return self.input_tokens + (self.max_tokens or 0)


@dataclass(slots=True, eq=False)
class Attempt:
    """One call to one target. `error` None: it was the one that answered, or still runs, or was cut off.

    `started_s` and `ended_s` are of the event loop's clock; `ended_s` None: it still runs.
    """

    target: Target
    started_s: float
    error: MainstayError | None = None
    ttft_s: float | None = None
    wait_s: float | None = None
    """Pause after it, before the next one; None when there was none."""
    ended_s: float | None = None
    completion: Completion | None = None
    """The answer, when it was asked for as a whole and came."""


Prepare = Callable[[Target], Awaitable[ChatCall]]
"""Called before each attempt: holds enough money for this target and gives the call as it is to be sent there.

Raises the budget's refusals, which end the request."""


class Observer(Protocol):
    """Told of every attempt, so that each gets its span and its meter. Methods neither wait nor raise."""

    def began(self, attempt: Attempt, call: ChatCall) -> None: ...

    def ended(self, attempt: Attempt) -> None:
        """Once for each attempt that began: finished, failed (`attempt.error`) or cut off by the caller."""
        ...
