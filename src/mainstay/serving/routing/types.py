"""Nouns of routing: the plan of one request, and who is told of its attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from mainstay.core.errors import MainstayError
from mainstay.models.types import Capability, ChatCall, Route, Target


@dataclass(slots=True)
class Plan:
    """What one request's attempts share. `ends_at_s` is of the event loop's clock.

    `input_tokens` is a likely count, for context lengths and the cheapest target. `sticky_key` names the
    conversation or its first messages. `attempts` is filled while the request runs.
    """

    route: Route
    ends_at_s: float
    needs: frozenset[Capability]
    input_tokens: int
    max_tokens: int | None = None
    sticky_key: str | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class Attempt:
    """One call to one target. `error` None: it was the one that answered, or still runs."""

    target: Target
    started_s: float
    error: MainstayError | None = None
    ttft_s: float | None = None
    wait_s: float | None = None
    """Pause after it, before the next one; None when there was none."""


Prepare = Callable[[Target], Awaitable[ChatCall]]
"""Called before each attempt: holds enough money for this target and gives the call as it is to be sent there.

Raises the budget's refusals, which end the request."""


class Observer(Protocol):
    """Told of every attempt, so that each gets its span and its meter. Methods neither wait nor raise."""

    def began(self, attempt: Attempt, call: ChatCall) -> None: ...

    def ended(self, attempt: Attempt) -> None:
        """Once for each attempt that began: finished, failed (`attempt.error`) or cut off by the caller."""
        ...
