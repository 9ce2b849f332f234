"""Admission: what a call may cost at most, what the budgets grant of it, and the output limit that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from mainstay.govern.types import LimitScope
from mainstay.models import worst_case_nusd
from mainstay.models.capabilities import has_cache_marks
from mainstay.models.tokens import call_token_ceiling
from mainstay.models.types import ChatCall, Price, Target
from mainstay.serving.limits.types import Ask, Hold

LEAST_OUTPUT_TOKENS = 16
"""A call clamped below this (or below what was asked for) is refused: its answer would be of no use."""

DEFAULT_OUTPUT_TOKENS = 4096
"""Output limit of a budgeted call when neither the caller nor the model names one."""

LIKELY_TOKENS = 1024
"""Output taken of a limit of tokens per minute when the caller names no limit of its own."""

BYTES_PER_TOKEN = 4
"""A token of prose has about this many bytes."""

_RATES: Mapping[str, tuple[Any, ...]] = {
    "service_tier": ("auto", "default", "flex", "standard", "standard_only"),
    "speed": ("standard",),
    "inference_geo": ("global",),
}
"""Fields by which OpenAI and Anthropic serve at dearer rates, and the values that do not."""

UNTRACKED = Hold("", (), 0, 0, 0, tracked=False)
"""The hold of a request that no limit applies to."""


class Need:
    """What a call needs of one target at most: input and output tokens, and their price there.

    `output_tokens` are those of one choice; `choices` multiplies them. Amounts are None for an unknown price.
    `asked`: whether the caller named the output limit. `cache_writes`: whether the call may write the provider's prompt cache. `thinking_tokens`: its budget of
    thinking, which providers want below the output limit.
    """

    __slots__ = (
        "asked",
        "cache_writes",
        "choices",
        "input_tokens",
        "least_nusd",
        "output_tokens",
        "price",
        "thinking_tokens",
        "worst_nusd",
    )

    def __init__(
        self,
        input_tokens: int,
        output_tokens: int,
        choices: int,
        price: Price | None,
        cache_writes: bool = True,
        thinking_tokens: int = 0,
        asked: bool = True,
    ) -> None:
        self.asked = asked
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.choices = choices
        self.price = price
        self.cache_writes = cache_writes
        self.worst_nusd = self._worst(output_tokens)
        self.thinking_tokens = thinking_tokens
        self.least_nusd = self._worst(min(output_tokens, thinking_tokens + LEAST_OUTPUT_TOKENS))

    @property
    def tokens(self) -> int:
        """What is taken of a limit of tokens until the true number is known. Likely, not the most: a limit per
        minute would else refuse what it allows, and what was used beyond it is taken afterwards."""
        likely = self.output_tokens
        if not self.asked and likely > LIKELY_TOKENS:
            likely = LIKELY_TOKENS
        return -(-self.input_tokens // BYTES_PER_TOKEN) + likely * self.choices

    def _worst(self, output_tokens: int) -> int | None:
        if self.price is None:
            return None
        written = output_tokens * self.choices
        return worst_case_nusd(self.input_tokens, written, self.price, cache_writes=self.cache_writes)

    def fitting(self, granted_nusd: int) -> int | None:
        """As `affordable`; None when not even one token beyond its thinking fits."""
        least = self._worst(self.thinking_tokens + 1)
        return None if least is None or least > granted_nusd else self.affordable(granted_nusd)

    def affordable(self, granted_nusd: int) -> int:
        """The most output tokens of a choice whose worst case the grant covers."""
        assert self.price is not None
        if (self.worst_nusd or 0) <= granted_nusd:
            return self.output_tokens
        low, high = 1, self.output_tokens  # the worst case rises with the output: bisect
        while low < high:
            middle = (low + high + 1) // 2
            if (self._worst(middle) or 0) <= granted_nusd:
                low = middle
            else:
                high = middle - 1
        return low


def need_of(call: ChatCall, target: Target) -> Need:
    """By length alone, as an engine's own tokenizer is too slow for the event loop."""
    return needs_of(call, (target,))[0]


def needs_of(call: ChatCall, targets: Iterable[Target]) -> list[Need]:
    """What the call needs of each: what is the same for all is counted once."""
    thinking = (call.reasoning.budget_tokens if call.reasoning is not None else None) or 0
    tokens = call_token_ceiling(call)
    if call.extra:  # passed through as it is, whatever it makes the provider read
        tokens += len(orjson.dumps(dict(call.extra)))
    cache_writes, asked = asks_for_cache(call), call.max_tokens is not None
    needs: list[Need] = []
    for target in targets:
        output = asked_tokens(call, target) or target.max_output_tokens or DEFAULT_OUTPUT_TOKENS + thinking
        price, last = price_for(call, target), needs[-1] if needs else None
        if last is not None and last.price is price and last.output_tokens == output:
            needs.append(last)  # the same model behind another key
        else:
            needs.append(Need(tokens, output, call.n, price, cache_writes, thinking, asked))
    return needs


def price_for(call: ChatCall, target: Target) -> Price | None:
    """The target's price; None, unknown, when the call asks its provider for service at another rate."""
    if call.extra and call.source_format == target.provider.wire_format:
        for name, at_list_price in _RATES.items():
            if call.extra.get(name, at_list_price[0]) not in at_list_price:
                return None
    return target.price


def asks_for_cache(call: ChatCall) -> bool:
    """Whether a provider may be told to write its prompt cache, which costs more than reading the prompt.

    Readers of every format find all places where a mark may stand, also in a body that is passed on as it is.
    """
    return "cache_control" in call.extra or has_cache_marks(call)


def asked_tokens(call: ChatCall, target: Target) -> int | None:
    """The output limit that caller and model agree on; None when neither names one."""
    if call.max_tokens is None or target.max_output_tokens is None:
        return call.max_tokens
    return min(call.max_tokens, target.max_output_tokens)


def ask_for(needs: Sequence[Need], spent_nusd: int = 0) -> Ask:
    """One ask for any of `needs`, on top of what failed attempts have cost already: as much as the dearest wants,
    and no less than the cheapest can do with. Whoever is chosen has its own need held before it is asked."""
    if len(needs) == 1 or all(need is needs[0] for need in needs):
        return _ask_for_one(needs[0], spent_nusd)
    worst = [n.worst_nusd for n in needs]
    least = [n.least_nusd for n in needs]
    return Ask(
        tokens=max(n.tokens for n in needs),
        wanted_nusd=_of_all(max, worst, spent_nusd),
        least_nusd=_of_all(min, least, spent_nusd),
    )


def _ask_for_one(need: Need, spent_nusd: int) -> Ask:
    worst, least = need.worst_nusd, need.least_nusd
    if worst is None or least is None:
        return Ask(need.tokens, None, None)
    if not spent_nusd:
        return Ask(need.tokens, worst, least, need.fitting)
    return Ask(
        need.tokens,
        worst + spent_nusd,
        least + spent_nusd,
        lambda granted_nusd: need.fitting(granted_nusd - spent_nusd),
    )


def _of_all(choose: Callable[[list[int]], int], amounts: list[int | None], spent_nusd: int) -> int | None:
    """None when any is unknown."""
    known = [amount for amount in amounts if amount is not None]
    return None if len(known) < len(amounts) else choose(known) + spent_nusd


def has_hard_budget(scopes: Iterable[LimitScope]) -> bool:
    for scope in scopes:
        for budget in scope.limits.budgets:
            if budget.hard:
                return True
    return False


def clamped(call: ChatCall, target: Target, need: Need, hold: Hold, spent_nusd: int) -> ChatCall:
    """The call with the output limit that the hold pays for: a hard budget cannot be overspent by it."""
    limit = asked_tokens(call, target)
    if hold.tracked and need.price is not None and has_hard_budget(hold.scopes):
        limit = need.affordable(hold.nusd - spent_nusd) if need.worst_nusd else need.output_tokens
    return call if limit == call.max_tokens else replace(call, max_tokens=limit)
