"""Whose price counts, and that an unknown price is none: never 0, never the live price in disguise."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from genai_prices.data import providers

import batchctl.prices
from batchctl.model.rows import Usage
from batchctl.prices import find, picos

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_known_batch_price_names_its_source_and_date() -> None:
    price = find("openai", "gpt-5-mini-2025-08-07", "batch", now=NOW)
    assert price is not None
    assert (price.rates.input, price.rates.cached, price.rates.output) == (125_000, 12_500, 1_000_000)
    assert price.source.startswith("genai-prices ")
    assert price.date == "2026-10-14"


def test_where_no_batch_cache_rate_is_published_cached_input_keeps_the_standard_rate() -> None:
    batch, live = (find("openai", "o4-mini", lane, now=NOW) for lane in ("batch", "live"))
    assert batch is not None
    assert live is not None
    assert batch.rates.cached == live.rates.cached == 275_000
    assert batch.rates.input * 2 == live.rates.input


def test_a_batch_price_not_in_force_yet_is_none() -> None:
    assert find("openai", "gpt-5-mini", "batch", now=datetime(2026, 10, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-9-of-next-year"),
        ("openai", "gpt-3.5-turbo-instruct"),
        ("openai-compatible", "gpt-5-mini"),
        ("bedrock", "gpt-5-mini"),
        ("vertex", "claude-sonnet-5"),
    ],
)
def test_no_source_no_price(provider: str, model: str) -> None:
    assert find(provider, model, "batch", now=NOW) is None


def test_the_silent_standard_price_is_never_taken_for_a_batch_price() -> None:
    """genai-prices gives every model a "batch" price; ours has one only where theirs is a variant of its own."""
    for vendor, ours in (
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("google", "gemini"),
        ("mistral", "mistral"),
    ):
        models = next(one for one in providers if one.id == vendor).models
        assert models
        for model in models:
            proved = any(dict(one.when) == {"processing": "batch"} for one in model.price_variants or ())
            price = find(ours, model.id, "batch", now=NOW)
            if price is not None and price.source.startswith("genai-prices"):
                assert proved, model.id


@pytest.mark.parametrize(
    ("vendor", "ours", "model", "usage"),
    [
        ("openai", "openai", "gpt-5.4", Usage(300_000, 900, 250_000, 0, 400)),
        ("openai", "openai", "gpt-5.4", Usage(272_000, 900, 0, 0, 0)),
        ("openai", "openai", "gpt-4o-mini", Usage(1000, 50, 512, 0, 0)),
        ("anthropic", "anthropic", "claude-haiku-4-5", Usage(5000, 77, 3000, 1000, 0)),
        ("google", "gemini", "gemini-2.5-flash-lite", Usage(900, 33, 0, 0, 20)),
    ],
)
def test_sums_agree_with_genai_prices(vendor: str, ours: str, model: str, usage: Usage) -> None:
    theirs = calc_price(
        TheirUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        ),
        model_ref=model,
        provider_id=vendor,
        genai_request_timestamp=NOW,
        price_context={"processing": "batch"},
    ).total_price
    price = find(ours, model, "batch", now=NOW)
    assert price is not None
    assert price.rates.cost(usage) == picos(theirs)


def test_the_own_table_answers_for_what_genai_prices_lacks() -> None:
    price = find("openai", "text-embedding-3-small", "batch", now=NOW)
    assert price is not None
    assert (price.rates.input, price.rates.output) == (10_000, 0)
    assert price.date == "2026-11-21"
    assert find("azure-openai", "gpt-4.1", "batch", now=NOW) is not None


def test_every_row_of_the_own_table_is_a_price_below_the_live_one() -> None:
    path = Path(batchctl.prices.__file__).with_name("table.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["provider"], row["model"]) for row in rows}) == len(rows) > 100
    for row in rows:
        batch, live = (find(row["provider"], row["model"], lane, now=NOW) for lane in ("batch", "live"))
        assert batch is not None
        assert live is not None
        assert 0 < batch.rates.input < live.rates.input or row["model"] == "gpt-5-pro", row
