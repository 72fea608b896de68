"""What each provider can do in batch: limits, endpoints, credentials, each with its source."""

from __future__ import annotations

from batchctl.model.batches import Traits
from batchctl.model.errors import Exit
from batchctl.providers import AVAILABLE, provider_for
from batchctl.workflow.reports import Report


def _cannot(traits: Traits) -> list[str]:
    """What this provider does not let batchctl do, and what it does instead."""
    missing = [
        (traits.searchable, "mark a batch: a lost create is known by its results"),
        (traits.fenced or not traits.searchable, "stop a late create: absence is believed after 15 minutes"),
        (traits.live, "answer single requests: no dry run"),
        (traits.structured_output, "hold answers to a schema: it is judged here"),
    ]
    return [words for able, words in missing if not able]


def providers() -> Report:
    """The table of providers this version can use. Reads no key and no network."""
    rows = []
    for name in AVAILABLE:
        one = provider_for(name, {"base_url": "https://example.invalid/v1"})
        limits = one.limits(one.traits.endpoints[0])
        rows.append(
            {
                "provider": name,
                "batch": one.traits.batch,
                "structured_output": one.traits.structured_output,
                "endpoints": list(one.traits.endpoints),
                "requests": limits.requests,
                "least_requests": limits.least_requests,
                "file_bytes": limits.file_bytes,
                "found_again": one.traits.searchable,
                "fenced": one.traits.fenced,
                "retention": one.traits.retention,
                "cannot": _cannot(one.traits),
                "credentials": [] if name == "emulator" else list(one.traits.credentials),
                "source": limits.source,
            }
        )
    lines = [f"{'provider':<20} {'requests':>9} {'file':>8}  {'credentials':<20} endpoints"]
    for row in rows:
        size = f"{row['file_bytes'] / 1e6:,.0f} MB"  # type: ignore[operator]
        keys = ", ".join(row["credentials"]) or "none"  # type: ignore[arg-type]
        lines.append(f"{row['provider']:<20} {row['requests']:>9,} {size:>8}  {keys:<20} " + " ".join(row["endpoints"]))  # type: ignore[arg-type]
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row["provider"] != "emulator":
            sources.setdefault(str(row["source"]), []).append(str(row["provider"]))
    lines += [f"limits of {', '.join(names)}: {source}" for source, names in sources.items()]
    lines.append("of openai-compatible servers: not verified")
    least = [(row["provider"], row["least_requests"]) for row in rows if row["least_requests"] != 1]
    lines += [f"a batch at {name} has at least {count} requests; fewer can be sent live" for name, count in least]
    return Report(
        "providers", None, Exit.OK, None, None, tuple(lines), "", {"providers": rows}, data="\n".join(lines) + "\n"
    )
