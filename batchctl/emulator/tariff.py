"""What the emulator's rows and calls would have cost: a meter in money, kept apart from batchctl's own prices.

It is the witness against which booked costs are tested, so it shares no code with them. Amounts are decimal, exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from batchctl.emulator.reading import known_keys, refuse

USD_PER_MILLION = {
    "input": "0.125",
    "cached": "0.0125",
    "output": "1",
    "live_input": "0.25",
    "live_cached": "0.025",
    "live_output": "2",
}
"""The tariff unless `[emulator] prices` gives another: batch, then live. Round numbers of no particular model."""

_MILLION = Decimal(10) ** 6


def tariff(value: Any, where: str) -> tuple[str, ...]:
    """`prices = { input = 0.5, output = 4 }`; what is left out keeps its price."""
    if not isinstance(value, Mapping):
        raise refuse("`prices` must be a table of USD per million tokens", where)
    known_keys(value, set(USD_PER_MILLION), where)
    for name, amount in value.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < 10**6:
            raise refuse(f"`prices.{name}` must be a number of at least 0, not {amount!r}", where)
    return tuple(str(value.get(name, usual)) for name, usual in USD_PER_MILLION.items())


def usd(prices: tuple[str, ...], lane: str, taken: int, cached: int, given: int) -> Decimal:
    """What so many input tokens (`cached` of them from a cache) and output tokens cost in a lane."""
    first = 0 if lane == "batch" else 3
    for_input, for_cached, for_output = (Decimal(one) for one in prices[first : first + 3])
    return ((taken - cached) * for_input + cached * for_cached + given * for_output) / _MILLION
