"""What each provider, and each model of one, can do in batch: limits, endpoints, prices, credentials, each with its source."""

from __future__ import annotations

import textwrap
from typing import Any

from batchctl.model.batches import Limits, Traits
from batchctl.model.errors import Exit, UsageError
from batchctl.prices import Price, as_usd, find, priced_in_batch
from batchctl.providers import AVAILABLE, provider_for
from batchctl.providers.capabilities import DOUBTS, NOT_VERIFIED, YES, answers_in_text, known_of
from batchctl.workflow.reports import Report, plural

NOWHERE = "https://example.invalid/v1"  # an address for providers that have none of their own; nothing is asked there
NO_PRICE = "no batch price is known; set [prices]"


def _cannot(traits: Traits) -> list[str]:
    """What this provider does not let batchctl do, and what it does instead."""
    missing = [
        (traits.searchable, "mark a batch: a lost create is known by its results"),
        (traits.fenced or not traits.searchable, "stop a late create: absence is believed after 15 minutes"),
        (traits.live, "answer single requests: no dry run"),
        (traits.structured_output, "hold answers to a schema: it is judged here"),
    ]
    return [*(words for able, words in missing if not able), *traits.lacks]


def _about(name: str) -> dict[str, Any]:
    """What holds for all models of a provider, as `--json` has it."""
    one = provider_for(name, {"base_url": NOWHERE})
    limits: Limits = one.limits(one.traits.endpoints[0])
    return {
        "provider": name,
        "batch": one.traits.batch,
        "structured_output": one.traits.structured_output,
        "endpoints": list(one.traits.endpoints),
        "requests": limits.requests,
        "least_requests": limits.least_requests,
        "file_bytes": limits.file_bytes,
        "line_bytes": limits.line_bytes,
        "found_again": one.traits.searchable,
        "fenced": one.traits.fenced,
        "live": one.traits.live,
        "retention": one.traits.retention,
        "regions": one.traits.regions,
        "cannot": [] if name == "emulator" else _cannot(one.traits),
        "credentials": [] if name == "emulator" else list(one.traits.credentials),
        "source": limits.source,
    }


def _model(provider: str, model: str) -> dict[str, Any]:
    """What is known of one model, as `--json` has it."""
    endpoints = provider_for(provider, {"base_url": NOWHERE, "model": model}).traits.endpoints
    known = known_of(provider, model, endpoints)
    price = find(provider, model, "batch")
    return {
        "model": model,
        "batch": NOT_VERIFIED if price is None else YES,
        "structured_output": known.structured_output,
        "endpoints": [one.rpartition(":")[2] for one in known.endpoints],  # Google's hold the model's name, too
        "usd_per_million": None if price is None else _per_million(price),
        "prices_from": None if price is None else price.source,
        "prices_date": None if price is None else price.date or None,
    }


def _per_million(price: Price) -> dict[str, str]:
    parts = {"input": price.rates.input, "output": price.rates.output, "cached": price.rates.cached}
    return {name: as_usd(rate * 1_000_000) for name, rate in parts.items()}


def providers(name: str | None = None, model: str | None = None) -> Report:
    """The table of providers this version can use, or one of them with its models. Reads no key and no network."""
    if name is None:
        return _all()
    if name not in AVAILABLE:
        raise UsageError(
            f"`providers` has no `{name}`",
            where="the command line",
            effect="nothing was done",
            hint=f"one of {', '.join(AVAILABLE)}; or batchctl providers check job.toml",
        )
    row = _about(name)
    names = [model] if model else [one for one in priced_in_batch(name) if answers_in_text(one)]
    models = [_model(name, one) for one in names]
    lines = [*_facts(row), "", *_table(models)]
    lines += [DOUBTS[name]] if name in DOUBTS else []
    if not model:
        lines.append(f"any other model: {NOT_VERIFIED}; `batchctl providers check JOB` asks the provider")
    facts = {"providers": [row], "models": models}
    return Report("providers", None, Exit.OK, None, None, tuple(lines), "", facts, data="\n".join(lines) + "\n")


def _facts(row: dict[str, Any]) -> list[str]:
    """One provider in words."""
    least = f", at least {row['least_requests']:,}" if row["least_requests"] > 1 else ""
    size = f"{row['file_bytes'] / 1e6:,.0f} MB a file, {row['line_bytes'] / 1e6:,.0f} MB a line"
    parts = [
        ("endpoints", ", ".join(row["endpoints"])),
        ("limits", f"{plural(row['requests'], 'request')} a batch{least}; {size}"),
        ("kept", row["retention"]),
        ("regions", row["regions"]),
        ("needs", ", ".join(row["credentials"]) or "no key"),
        ("cannot", "; ".join(row["cannot"]) or "-"),
        ("limits from", row["source"]),
    ]
    lines = [str(row["provider"])]
    for word, text in parts:
        lines += textwrap.wrap(text, 96, initial_indent=f"  {word:<12}", subsequent_indent=" " * 14)
    return lines


def _table(models: list[dict[str, Any]]) -> list[str]:
    """Models, a line each; prices are USD per million tokens in batch."""
    if not models:
        return [f"no model has a batch price that a source is certain of: batch {NOT_VERIFIED}, see [prices]"]
    widest = max(len(one["model"]) for one in models)
    lines = [
        f"{'model':<{widest}}  {'batch':<12}  {'schema':<12}  {'input':>8} {'output':>8}  USD per million tokens from"
    ]
    for one in models:
        price = one["usd_per_million"]
        shown = f"{'?':>8} {'?':>8}  {NO_PRICE}"
        if price is not None:
            date = f", checked {one['prices_date']}" if one["prices_date"] else ""
            shown = f"{price['input']:>8} {price['output']:>8}  {one['prices_from']}{date}"
        lines.append(f"{one['model']:<{widest}}  {one['batch']:<12}  {one['structured_output']:<12}  {shown}")
    endpoints: dict[tuple[str, ...], list[str]] = {}
    for one in models:
        endpoints.setdefault(tuple(one["endpoints"]), []).append(one["model"])
    if len(endpoints) > 1:
        few = sorted(endpoints.items(), key=lambda part: len(part[1]))[:-1]
        for ways, names in few:
            lines += textwrap.wrap(f"asked by {', '.join(ways)} only: {', '.join(names)}", 110, subsequent_indent="  ")
    return lines


def _all() -> Report:
    rows = [_about(name) for name in AVAILABLE]
    lines = [f"{'provider':<20} {'requests':>9} {'file':>8}  {'credentials':<20} endpoints"]
    for row in rows:
        size = f"{row['file_bytes'] / 1e6:,.0f} MB"
        keys = ", ".join(row["credentials"]) or "none"
        lines.append(f"{row['provider']:<20} {row['requests']:>9,} {size:>8}  {keys:<20} " + " ".join(row["endpoints"]))
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row["provider"] != "emulator":
            sources.setdefault(row["source"], []).append(row["provider"])
    lines += [f"limits of {', '.join(names)}: {source}" for source, names in sources.items()]
    lines.append("of openai-compatible servers: not verified")
    least = [(row["provider"], row["least_requests"]) for row in rows if row["least_requests"] != 1]
    lines += [f"a batch at {name} has at least {count} requests; fewer can be sent live" for name, count in least]
    lines.append("one with its models, their prices and what they can do: batchctl providers NAME [MODEL]")
    return Report(
        "providers", None, Exit.OK, None, None, tuple(lines), "", {"providers": rows}, data="\n".join(lines) + "\n"
    )
