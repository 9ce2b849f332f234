"""The form that sets limits: its fields, what was typed into them, and which of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from mainstay.core.errors import InvalidInput
from mainstay.core.money import nusd_from_usd, usd_text
from mainstay.govern import RATE_WORDS, WINDOWS, Budget, Limits

BUDGET_FIELDS = tuple(
    (f"{kind}_{window}", window, kind == "hard") for window in WINDOWS for kind in ("hard", "soft")
)
"""(field name, window, hard)"""

FIELDS = (*RATE_WORDS, *(name for name, _, _ in BUDGET_FIELDS))


class FieldMistake(InvalidInput):
    """What is wrong about one field of a form."""

    def __init__(self, field: str, message: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.field = field


def limits_typed(given: Mapping[str, str]) -> Limits:
    """The limits in a form's fields; an empty field is no limit. Raises FieldMistake."""
    budgets = []
    for name, window, hard in BUDGET_FIELDS:
        nusd = dollars_typed(name, given.get(name, ""))
        if nusd is not None:
            budgets.append(Budget(nusd, window, hard))
    rates = {name: whole_typed(name, given.get(name, ""), words) for name, words in RATE_WORDS.items()}
    return Limits(**rates, budgets=tuple(budgets))


def typed(limits: Limits) -> dict[str, str]:
    """What the form's fields hold when these limits are changed."""
    rates = {name: getattr(limits, name) for name in RATE_WORDS}
    fields = {name: str(rate) for name, rate in rates.items() if rate is not None}
    amounts = {(b.window, b.hard): usd_text(b.limit_nusd) for b in limits.budgets}
    return fields | {
        n: amounts[window, hard] for n, window, hard in BUDGET_FIELDS if (window, hard) in amounts
    }


def dollars_typed(field: str, text: str) -> int | None:
    text = text.strip().removeprefix("$").strip()
    if not text:
        return None
    try:
        return nusd_from_usd(text)
    except InvalidInput as error:
        raise FieldMistake(field, error.message, error.fix) from error


def whole_typed(field: str, text: str, what: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or len(text.strip()) > 18:
        raise FieldMistake(field, f"{what[0].upper()}{what[1:]} must be a whole number, not {text!r}.")
    return int(text)
