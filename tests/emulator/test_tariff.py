"""The money meter: its tariff as people write it, and sums that are exact."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from batchctl.emulator import Settings
from batchctl.emulator.tariff import usd
from batchctl.model.errors import UsageError


def test_a_lane_has_its_prices_and_cached_tokens_are_part_of_the_input() -> None:
    prices = Settings.from_mapping({"prices": {"input": 0.1, "cached": 0.01, "output": 0.7}}).prices
    assert usd(prices, "batch", 1000, 300, 20) == Decimal("0.000087")
    assert usd(prices, "live", 1000, 300, 20) == Decimal("0.0002225")


def test_sums_of_many_rows_lose_nothing() -> None:
    prices = Settings().prices
    assert sum((usd(prices, "batch", 1, 0, 1) for _ in range(100_000)), Decimal(0)) == Decimal("0.1125")


@pytest.mark.parametrize("prices", [{"inputs": 1}, {"input": -1}, {"input": "free"}, {"output": True}, 3])
def test_mistakes_in_a_tariff_are_named(prices: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_mapping({"prices": prices})
    assert "input" in f"{caught.value.what} {caught.value.hint}" or "prices" in caught.value.what


def test_a_batch_keeps_the_tariff_it_was_created_under() -> None:
    settings = Settings.from_mapping({"prices": {"input": 3}, "cached": "40%", "thinking": 7})
    restored = Settings.restored(settings.stored())
    assert (restored.prices, restored.cached, restored.thinking) == (settings.prices, 0.4, 7)
