"""What the requests of one caller are counted against, found once and not for each of them."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.govern.types import LimitScope
from mainstay.serving.limits.accounts import ScopeState


class Plan:
    """The limits of these scopes, all of them and by kind, good until `until_us` while no scope's limits change.

    It keeps `scopes` alive, so that none of their addresses is another's while the plan is known by them.
    """

    __slots__ = (
        "accounts",
        "accounts_json",
        "has_soft",
        "requests",
        "scopes",
        "slots",
        "states",
        "tokens",
        "until_us",
    )

    def __init__(self, scopes: Sequence[LimitScope], states: Sequence[ScopeState]) -> None:
        self.scopes = tuple(scopes)
        self.states = tuple(states)
        self.requests = [meter for state in states if (meter := state.requests) is not None]
        self.tokens = [meter for state in states if (meter := state.tokens) is not None]
        self.slots = [(state, slots) for state in states if (slots := state.slots) is not None]
        self.accounts = [account for state in states for account in state.accounts]
        self.accounts_json = b",".join(account.json for account in self.accounts)
        self.has_soft = any(account.soft_nusd is not None for account in self.accounts)
        self.until_us = min(state.until_us for state in states)
