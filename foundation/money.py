"""Money as integer nano-dollars, and as OpenRouter writes it: JSON numbers or texts of dollars.

A double holds every amount below a million dollars to the nano-dollar, so amounts that we show are JSON numbers; what
comes in is read from its digits, because sums of doubles drift.
"""

from __future__ import annotations

from decimal import Decimal

NANO = 1_000_000_000  # nano-dollars in a dollar
MAX_NANO = 2**63 - 1


def nano(dollars: object) -> int | None:
    """Dollars as nano-dollars, half a nano-dollar to the even one; None stays None.

    Raises ValueError or ArithmeticError if it is no amount of money.
    """
    if dollars is None:
        return None
    amount = (dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))) * NANO
    if abs(amount) > MAX_NANO:  # before it is rounded: to make an integer of 1e999999 takes many seconds
        raise ValueError("more than a column holds")
    return round(amount)


def usd(amount_nano: int | None) -> float | None:
    """Nano-dollars as dollars, for showing; None stays None."""
    return None if amount_nano is None else amount_nano / NANO
