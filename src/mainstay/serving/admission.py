"""Admission: what a call may cost at most, what the caller's budget grants, and the output limit that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mainstay.core.faults import fault
from mainstay.govern.types import ApiKey
from mainstay.models import message_token_ceiling, worst_case_nusd
from mainstay.models.types import ChatMessage, Price, Target
from mainstay.serving.errors import PriceUnknown
from mainstay.serving.ledger import Hold, Ledger

LEAST_OUTPUT_TOKENS = 16
"""A call clamped below this (or below what was asked for) is refused: its answer would be of no use."""

DEFAULT_OUTPUT_TOKENS = 4096
"""Output limit of a budgeted call when neither the caller nor the model names one."""


@dataclass(frozen=True, slots=True)
class Admission:
    """An open hold, and the `max_tokens` it pays for (None: no limit was asked for and none is needed)."""

    hold: Hold
    max_tokens: int | None


def admit(
    ledger: Ledger,
    key: ApiKey | None,
    target: Target,
    messages: Sequence[ChatMessage],
    max_tokens: int | None,
    extra: Mapping[str, Any] | None = None,
) -> Admission:
    """Reserve the worst case of the messages as they came, and of `extra` fields that are forwarded with them.

    Raises the ledger's refusals, or PriceUnknown.
    """
    if not _budgeted(key):
        return Admission(ledger.reserve(key, 0, 0), _asked(target, max_tokens))
    price = _price(target)
    tokens = _input_tokens(messages, extra or {})
    wanted, least, output = _worst_cases(target, price, tokens, max_tokens)
    hold = ledger.reserve(key, wanted, least)
    fault("serving.after_reserve")
    return Admission(hold, _affordable(hold.nusd, price, tokens, output))


def fit(
    admission: Admission,
    ledger: Ledger,
    key: ApiKey | None,
    target: Target,
    messages: Sequence[ChatMessage],
    max_tokens: int | None,
) -> Admission:
    """The hold resized to the messages as they will be sent, passages included; refuses as `admit` does."""
    if not _budgeted(key):
        return admission
    price = _price(target)
    tokens = _input_tokens(messages, {})
    wanted, least, output = _worst_cases(target, price, tokens, max_tokens)
    hold = ledger.resize(key, admission.hold, wanted, least)
    return Admission(hold, _affordable(hold.nusd, price, tokens, output))


def _budgeted(key: ApiKey | None) -> bool:
    return key is not None and key.budget_nusd is not None


def _price(target: Target) -> Price:
    if target.price is None:
        raise PriceUnknown(
            f"The price of {target.public_name} is not known, and this key has a budget to keep.",
            fix="Use a model with a known price, or a key without a budget.",
            param="model",
        )
    return target.price


def _asked(target: Target, max_tokens: int | None) -> int | None:
    if max_tokens is None or target.max_output_tokens is None:
        return max_tokens
    return min(max_tokens, target.max_output_tokens)


def _input_tokens(messages: Sequence[ChatMessage], extra: Mapping[str, Any]) -> int:
    """No more than these: by length alone, as an engine's own tokenizer is too slow for the event loop."""
    return message_token_ceiling(messages) + (len(orjson.dumps(dict(extra))) if extra else 0)


def _worst_cases(target: Target, price: Price, tokens: int, max_tokens: int | None) -> tuple[int, int, int]:
    """(nano-dollars at most, nano-dollars of the shortest useful answer, output tokens at most)."""
    output = _asked(target, max_tokens) or target.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    least = worst_case_nusd(tokens, min(output, LEAST_OUTPUT_TOKENS), price)
    return worst_case_nusd(tokens, output, price), least, output


def _affordable(granted_nusd: int, price: Price, tokens: int, output: int) -> int:
    """The most output tokens whose worst case the grant covers."""
    if worst_case_nusd(tokens, output, price) <= granted_nusd:
        return output
    low, high = 1, output  # the worst case rises with the output: bisect
    while low < high:
        middle = (low + high + 1) // 2
        if worst_case_nusd(tokens, middle, price) <= granted_nusd:
            low = middle
        else:
            high = middle - 1
    return low
