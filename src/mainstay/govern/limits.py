"""What limits mean: which make sense together, how people write them, how they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from mainstay.core.errors import InvalidInput
from mainstay.core.money import NUSD_PER_USD, nusd_from_usd, show_usd
from mainstay.govern.types import Budget, BudgetWindow, Limits

BUDGET_NUSD_MAX: Final = 1_000_000_000 * NUSD_PER_USD
"""A billion dollars: more is a slip of the finger, and sums of many stay within 64 bits."""

RATES_MAX: Final[Mapping[str, int]] = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 1_000_000_000_000,
    "concurrent_requests": 1_000_000,
}
RATE_WORDS: Final[Mapping[str, str]] = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "concurrent_requests": "requests at once",
}
WINDOWS: Final[tuple[BudgetWindow, ...]] = get_args(BudgetWindow)
_PER: Final[Mapping[BudgetWindow, str]] = {
    "day": "a day",
    "week": "a week",
    "month": "a month",
    "total": "in all",
}


def checked(limits: Limits) -> Limits:
    """The same limits, budgets in the order of their windows, hard before soft. Raises InvalidInput."""
    for name, most in RATES_MAX.items():
        rate = getattr(limits, name)
        if rate is not None and not 1 <= rate <= most:
            raise InvalidInput(
                f"A limit of {rate:,} {RATE_WORDS[name]} makes no sense.",
                fix=f"Use 1 to {most:,}, or none.",
                limit=name,
            )
    for budget in limits.budgets:
        _check_budget(budget)
    for (window, hard), count in Counter((b.window, b.hard) for b in limits.budgets).items():
        if count > 1:
            word = "hard" if hard else "soft"
            raise InvalidInput(f"There are {count} {word} budgets {_PER[window]}.", fix="Give one of them.")
    _refuse_soft_above_hard(limits.budgets)
    in_order = sorted(limits.budgets, key=lambda b: (WINDOWS.index(b.window), not b.hard))
    return replace(limits, budgets=tuple(in_order))


def _check_budget(budget: Budget) -> None:
    if budget.window not in WINDOWS:
        raise InvalidInput(f"{budget.window!r} is no budget window.", fix=f"Use one of {', '.join(WINDOWS)}.")
    if budget.limit_nusd < 0:
        raise InvalidInput(f"A budget cannot be below zero: {show_usd(budget.limit_nusd)}.")
    if budget.limit_nusd > BUDGET_NUSD_MAX:
        raise InvalidInput(
            f"A budget of {show_usd(budget.limit_nusd)} is too large.",
            fix=f"Use at most {show_usd(BUDGET_NUSD_MAX)}, or no budget at all.",
        )


def _refuse_soft_above_hard(budgets: Sequence[Budget]) -> None:
    hard = {b.window: b.limit_nusd for b in budgets if b.hard}
    for soft in budgets:
        if not soft.hard and soft.limit_nusd > hard.get(soft.window, soft.limit_nusd):
            most = show_usd(hard[soft.window])
            raise InvalidInput(
                f"The soft budget of {show_usd(soft.limit_nusd)} {_PER[soft.window]} is above the hard one "
                f"of {most}: it would never warn.",
                fix=f"Set the soft one below {most}, or leave it out.",
            )


# --- as people write them ----------------------------------------------------------------------------------


def budget_from_text(text: str, *, hard: bool = True, window: BudgetWindow | None = None) -> Budget:
    """`5/day`, `$100/month`; without a slash the amount is for `window`. Raises InvalidInput."""
    amount, slash, named = text.strip().partition("/")
    found = named.strip() if slash else window
    if found not in WINDOWS:
        raise InvalidInput(
            f"{text!r} does not say what the budget is for."
            if found is None
            else f"{found!r} is no budget window.",
            fix=f"Write it like 5/day; the windows are {', '.join(WINDOWS)}.",
        )
    budget = Budget(nusd_from_usd(amount.strip().removeprefix("$")), found, hard)
    _check_budget(budget)
    return budget


def budget_text(budget: Budget) -> str:
    """`$5 a day`; a soft one says so: `$4 a day (soft)`."""
    amount = show_usd(budget.limit_nusd).removesuffix(".00")
    return f"{amount} {_PER[budget.window]}" + ("" if budget.hard else " (soft)")


def limit_texts(limits: Limits) -> tuple[str, ...]:
    """One phrase a limit, budgets last: `60 requests a minute`, `$5 a day`."""
    rates = [(getattr(limits, name), words) for name, words in RATE_WORDS.items()]
    shown = [f"{rate:,} {words}" for rate, words in rates if rate is not None]
    return (*shown, *(budget_text(b) for b in limits.budgets))


# --- as they are stored ------------------------------------------------------------------------------------


def limits_to_json(limits: Limits) -> dict[str, Any]:
    """What the `limits` table and the audit log hold; what is not limited is left out."""
    rates = {name: getattr(limits, name) for name in RATES_MAX}
    body: dict[str, Any] = {name: rate for name, rate in rates.items() if rate is not None}
    if limits.budgets:
        body["budgets"] = [
            {"limit_nusd": b.limit_nusd, "window": b.window, "hard": b.hard} for b in limits.budgets
        ]
    return body


def limits_from_json(body: Mapping[str, Any]) -> Limits:
    budgets = (Budget(b["limit_nusd"], b["window"], b["hard"]) for b in body.get("budgets", ()))
    rates = {name: body.get(name) for name in RATES_MAX}
    return Limits(**rates, budgets=tuple(budgets))
