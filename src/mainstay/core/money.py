"""Money is an integer of nano-dollars (`*_nusd`, 1e-9 USD); dollars only where people read it."""

from __future__ import annotations

from decimal import Decimal

from mainstay.core.errors import InvalidInput

NUSD_PER_USD = 1_000_000_000
_NUSD_MAX = 9_000_000_000 * NUSD_PER_USD
"""What a 64-bit column holds, in round figures."""


def nusd_from_usd(usd: str | Decimal | int) -> int:
    """Exact nano-dollars of a decimal amount. Raises InvalidInput for what is none, or needs over 64 bits."""
    try:
        amount = Decimal(usd) * NUSD_PER_USD
    except ArithmeticError as error:
        raise InvalidInput(f"{usd!r} is no amount in dollars.", fix="Write it like 12.50.") from error
    if not amount.is_finite():
        raise InvalidInput(f"{usd!r} is no amount in dollars.", fix="Write it like 12.50.")
    if abs(amount) > _NUSD_MAX:
        raise InvalidInput("This amount is too large.", fix="Write at most nine billion dollars.")
    return int(amount.to_integral_value())


def usd_text(nusd: int) -> str:
    """Exact dollars for machines, without exponent or trailing zeros: `0.0000021`."""
    if nusd < 0:
        return f"-{usd_text(-nusd)}"
    digits = f"{nusd:010d}"
    part = digits[-9:].rstrip("0")
    return f"{digits[:-9]}.{part}" if part else digits[:-9]


def show_usd(nusd: int | None) -> str:
    """Dollars for people: `$12.40`, `$0.0021`, `–` when unknown."""
    if nusd is None:
        return "–"
    usd = nusd / NUSD_PER_USD
    if nusd == 0:
        return "$0"
    if abs(usd) >= 0.01:
        return f"${usd:,.2f}"
    return f"${usd:.2g}" if abs(usd) >= 0.0001 else f"${usd_text(nusd)}"
