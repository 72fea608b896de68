"""Money is exact: whole picodollars, and only what a person reads is rounded."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchctl.model.rows import Usage
from batchctl.prices import Price, Rates, as_usd, override, picos, usd_text

TOKENS = st.integers(0, 10**7)
RATE = st.integers(0, 10**9)


def test_cached_and_written_tokens_are_parts_of_the_input_and_reasoning_of_the_output() -> None:
    rates = Rates(input=1000, output=8000, cached=100, cache_write=1250)
    usage = Usage(input_tokens=100, output_tokens=10, cached_tokens=60, cache_write_tokens=20, reasoning_tokens=7)
    assert rates.cost(usage) == 20 * 1000 + 60 * 100 + 20 * 1250 + 10 * 8000


def test_beyond_the_long_context_border_the_whole_request_is_dearer() -> None:
    rates = Rates(10, 100, 1, 10, above=200, long=Rates(20, 150, 2, 20))
    assert rates.cost(Usage(input_tokens=200, output_tokens=1)) == 2100
    assert rates.cost(Usage(input_tokens=201, output_tokens=1)) == 201 * 20 + 150


@given(st.tuples(TOKENS, TOKENS, TOKENS, TOKENS), st.tuples(RATE, RATE, RATE, RATE))
def test_no_usage_costs_less_than_nothing_or_more_than_its_bound(
    tokens: tuple[int, int, int, int], rates: tuple[int, int, int, int]
) -> None:
    price = Rates(*rates)
    assert 0 <= price.cost(Usage(*tokens)) <= price.at_most(tokens[0], tokens[1])


def test_a_price_survives_the_ledger() -> None:
    price = Price(Rates(10, 100, 1, 10, 200, Rates(20, 150, 2, 20)), "a page", "2026-11-21")
    assert Price.from_dict(price.as_dict()) == price


def test_prices_of_a_job_file_are_exact() -> None:
    price = override(Decimal("0.1"), Decimal("0.7"))
    assert price.rates == Rates(100_000, 700_000, 100_000, 100_000)


@pytest.mark.parametrize(
    ("amount", "exact", "shown"),
    [
        (0, "0", "$0.00"),
        (10**12, "1", "$1.00"),
        (1, "0.000000000001", "$0.000000000001"),
        (1_234_567_800_000_000, "1234.5678", "$1,234.57"),
        (16_349_000_000, "0.016349", "$0.0163"),
        (4_250_000, "0.00000425", "$0.00000425"),
        (999_600_000_000, "0.9996", "$1.000"),
        (10**24, "1000000000000", "$1,000,000,000,000.00"),
    ],
)
def test_amounts_are_written_without_an_exponent(amount: int, exact: str, shown: str) -> None:
    assert (as_usd(amount), usd_text(amount)) == (exact, shown)


@given(st.integers(0, 10**18))
def test_a_decimal_string_reads_back_exactly(amount: int) -> None:
    assert picos(Decimal(as_usd(amount))) == amount
