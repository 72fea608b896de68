"""The price of a model in a lane, or None when no source is certain of it.

genai-prices 0.2.3 is asked first (imported here only: 3 times the CPU of pydantic). It answers with the standard price
when it has no batch price, without a word, so its batch variant must be there, be in force today and name every rate that
is billed. Cache rates follow it: a published batch cache rate counts; where the batch table has none, cached input keeps
the standard cached rate (developers.openai.com/api/docs/pricing and ai.google.dev/gemini-api/docs/batch-mode, as
genai-prices recorded them on 2026-10-14; Vertex: "the cache discount wins").

`table.csv` has what it lacks: Azure, Bedrock, Vertex and a few OpenAI models, from the MIT-licensed
`model_prices_and_context_window_backup.json` of litellm 1.109.1, read 2026-11-21. Models whose long-context price is not
published for batch are left out, and so are Claude models on Vertex, whose batch price no page confirms.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from batchctl.prices.rates import Price, Rates, per_token

Lane = Literal["batch", "live"]
_TABLE = "litellm 1.109.1 price table"
_TABLE_DATE = "2026-11-21"
_IN_GENAI = {"openai": "openai", "anthropic": "anthropic", "gemini": "google", "mistral": "mistral"}
_BATCH = {"processing": "batch"}
_SIMULATED = {
    "batch": Rates(125_000, 1_000_000, 12_500, 125_000),
    "live": Rates(250_000, 2_000_000, 25_000, 250_000),
}


def find(provider: str, model: str, lane: Lane, *, now: datetime | None = None) -> Price | None:
    """The price of `model` at `provider`, as far as a source is certain of it."""
    if provider == "emulator":
        return Price(_SIMULATED[lane], "the emulator's own tariff", "")
    if provider == "vllm":  # files for a machine of one's own; what it costs is for `[prices]` to say
        return Price(Rates(0, 0, 0, 0), "your own machine, which no vendor bills", "")
    return _genai(provider, model, lane, now or datetime.now(UTC)) or _table(provider, model, lane)


def priced_in_batch(provider: str) -> tuple[str, ...]:
    """Names of the models whose price in batch a source is certain of; a name may stand for its snapshots."""
    names = {model for vendor, model in _rows() if vendor == provider}
    if provider in _IN_GENAI:
        from genai_prices.data import providers

        vendor = next((one for one in providers if one.id == _IN_GENAI[provider]), None)
        own = "gemini" if provider == "gemini" else ""  # Google's list has models of others as well
        names |= {one.id for one in (vendor.models if vendor else ()) if one.id.startswith(own)}
        names = {name for name in names if not name.endswith("-")}  # the beginning of many names is none
    return tuple(sorted(name for name in names if find(provider, name, "batch") is not None))


def override(
    taken: Decimal, given: Decimal, *, cached: Decimal | None = None, cache_write: Decimal | None = None
) -> Price:
    """What the job file's `[prices]` says, in USD per million tokens; cached input costs as input unless it says."""
    rates = Rates(
        per_token(taken),
        per_token(given),
        per_token(taken if cached is None else cached),
        per_token(taken if cache_write is None else cache_write),
    )
    return Price(rates, "[prices] in the job file", "")


def _genai(provider: str, model: str, lane: Lane, now: datetime) -> Price | None:
    known = _IN_GENAI.get(provider)
    if known is None:
        return None
    from importlib import metadata

    from genai_prices.data import providers

    vendor = next((one for one in providers if one.id == known), None)
    found = None if vendor is None else vendor.find_model(model)
    if found is None:
        return None
    standard = found.get_prices(now)
    comments = found.price_comments or ""
    source = f"genai-prices {metadata.version('genai-prices')}"
    if lane == "live":
        rates = _rates(standard)
        dates = re.findall(r"verified on (\d{4}-\d{2}-\d{2})", comments)
        return None if rates is None else Price(rates, source, min(dates, default=""))
    variant = next(
        (
            one
            for one in found.price_variants or ()
            if dict(one.when) == _BATCH and (one.constraint is None or one.constraint.active(now))
        ),
        None,
    )
    if variant is None or variant.prices.input_mtok is None:
        return None
    if variant.prices.output_mtok is None and standard.output_mtok is not None:
        return None  # half a batch price is none: the other half would silently be the live price
    rates = _rates(found.get_prices(now, _BATCH))
    said = re.search(r"[Bb]atch[^.]*verified on (\d{4}-\d{2}-\d{2})", comments)
    started = getattr(variant.constraint, "start_date", None)
    return None if rates is None else Price(rates, source, said[1] if said else str(started or ""))


def _rates(prices: Any) -> Rates | None:
    """Rates of a genai-prices model price; None when it does not price input tokens."""
    if prices.input_mtok is None:
        return None
    keys = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    starts = sorted({tier.start for key in keys for tier in getattr(key, "tiers", ())}, reverse=True)
    rates: Rates | None = None
    above: int | None = None
    for start in [*starts, None]:
        taken, given, cached, written = (_at(key, start) for key in keys)
        assert taken is not None
        rates = Rates(
            per_token(taken),
            per_token(given or Decimal(0)),  # no output price: an embedding has no output tokens
            per_token(taken if cached is None else cached),
            per_token(taken if written is None else written),
            above,
            rates,
        )
        above = start
    return rates


def _at(price: Any, start: int | None) -> Decimal | None:
    """A price beyond `start` input tokens; None is the base."""
    if price is None or isinstance(price, Decimal):
        return price
    value: Decimal = price.base
    for tier in price.tiers:
        if start is not None and tier.start <= start:
            value = tier.price
    return value


def _table(provider: str, model: str, lane: Lane) -> Price | None:
    row = _rows().get((provider, model))
    if row is None:
        return None
    taken, given, cached = (row[f"{lane}_{name}"] for name in ("input", "output", "cached"))
    rates = Rates(
        per_token(Decimal(taken)),
        per_token(Decimal(given)),
        per_token(Decimal(cached or taken)),
        per_token(Decimal(taken)),
    )
    return Price(rates, _TABLE, _TABLE_DATE)


@lru_cache(maxsize=1)
def _rows() -> dict[tuple[str, str], dict[str, str]]:
    import csv
    from importlib import resources

    text = resources.files("batchctl.prices").joinpath("table.csv").read_text(encoding="utf-8")
    return {(row["provider"], row["model"]): row for row in csv.DictReader(text.split("\n"))}
