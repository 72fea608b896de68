"""Exact money: whole picodollars (1e-12 USD). A price of $0.000001 per million tokens is one picodollar a token.

Sums of any size stay exact; only what a person reads is rounded, and then half up, to the cent or finer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal, localcontext
from typing import Any

from batchctl.model.rows import Usage

PICOS = 10**12
_PER_TOKEN = Decimal(10**6)  # USD per million tokens to picodollars a token


@dataclass(frozen=True, slots=True)
class Rates:
    """Picodollars a token. `cached` and `cache_write` are parts of the input; reasoning tokens are part of the output.

    `above`: beyond so many input tokens the whole request is billed at `long` (a cliff, as OpenAI and Google have it).
    """

    input: int
    output: int
    cached: int
    cache_write: int
    above: int | None = None
    long: Rates | None = None

    def cost(self, usage: Usage) -> int:
        """Picodollars of one request. A vendor's `cached` beyond its input cannot make a cost negative."""
        if self.long is not None and self.above is not None and usage.input_tokens > self.above:
            return self.long.cost(usage)
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(usage.cache_write_tokens, usage.input_tokens - cached)
        plain = usage.input_tokens - cached - written
        return (
            plain * self.input + cached * self.cached + written * self.cache_write + usage.output_tokens * self.output
        )

    def at_most(self, input_tokens: int, output_tokens: int) -> int:
        """Picodollars that many tokens can cost at the dearest of the rates."""
        dearest = max(self.input, self.cached, self.cache_write)
        mine = input_tokens * dearest + output_tokens * self.output
        return mine if self.long is None else max(mine, self.long.at_most(input_tokens, output_tokens))


@dataclass(frozen=True, slots=True)
class Price:
    """The rates of a model in a lane, and where they come from. `date` is when the source was checked, if it says."""

    rates: Rates
    source: str
    date: str

    @property
    def named(self) -> str:
        """For people: `genai-prices 0.2.3, checked 2026-10-14`."""
        return self.source + (f", checked {self.date}" if self.date else "")

    def as_dict(self) -> dict[str, Any]:
        """For the ledger; `from_dict` reads it back."""
        tiers = []
        rates: Rates | None = self.rates
        while rates is not None:
            tiers.append([rates.input, rates.output, rates.cached, rates.cache_write, rates.above])
            rates = rates.long
        return {"rates": tiers, "source": self.source, "date": self.date}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Price:
        rates: Rates | None = None
        for taken, given, cached, written, above in reversed(facts["rates"]):
            rates = Rates(taken, given, cached, written, above, rates)
        assert rates is not None
        return cls(rates, facts["source"], facts["date"])


def per_token(usd_per_million: Decimal) -> int:
    """Picodollars a token; a price finer than that is rounded up, so that no bill is understated."""
    return int((usd_per_million * _PER_TOKEN).to_integral_value(ROUND_CEILING))


def picos(usd: Decimal) -> int:
    """Whole picodollars of an amount."""
    with localcontext() as context:
        context.prec = 60
        return int((usd * PICOS).to_integral_value(ROUND_CEILING))


def as_usd(amount: int) -> str:
    """Exact decimal string for files and `--json`, without an exponent or needless zeros: `0.0000425`."""
    whole, rest = divmod(abs(amount), PICOS)
    digits = f"{rest:012d}".rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole}{'.' + digits if digits else ''}"


def usd_text(amount: int) -> str:
    """For people: cents, or as many digits as show three that count: `$12.30`, `$0.0163`, `$0.00000425`."""
    with localcontext() as context:
        context.prec = 60
        value = Decimal(amount) / PICOS
        places = 2
        if value and abs(value) < 1:
            places = min(12, max(2, 2 - value.adjusted()))
        return f"${value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"
