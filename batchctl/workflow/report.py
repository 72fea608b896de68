"""What a run cost and how it went: money first, then failures, turnaround, and the forecast against what came.

Reads only: the ledger, and the reasons in the verdict segments (history, so that a row that failed once and succeeded later
is counted in both attempts). No row text leaves unless it is asked for.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from batchctl.chunks import segments
from batchctl.chunks.names import verdicts_name
from batchctl.files import replacing
from batchctl.ledger import publications, queries
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import UsageError
from batchctl.model.rows import RowState
from batchctl.prices import as_usd, picos, usd_text
from batchctl.report_html import VERDICTS, page
from batchctl.workflow.money import BATCH, books, cost
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.standing import broken_shares, is_simulated, share_facts
from batchctl.workflow.workspace import Options, Workspace, opened

TEXT_ROWS = 50


def report(options: Options, *, html: str | None = None, with_text: bool = False) -> Report:
    """The figures of one run; `html` also writes them as one self-contained page."""
    target = None if html is None else Path(html)
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(
            f"there is no directory `{target.parent}`",
            where="--html",
            effect="nothing was written",
            hint="create it, or name another place",
        )
    with opened(options, write=False) as workspace:
        run = workspace.run
        balance = queries.balance(workspace.ledger.db, run.id)
        spent = cost(workspace.ledger.db, run, balance)
        facts = _facts(workspace, run, balance)
        if with_text:
            facts["failed_rows"] = _failed_rows(workspace, run)
        simulated = is_simulated(workspace)
        lines = _lines(run, balance, spent, facts)
        if target is not None:
            whole = {"run": run.id, "simulated": simulated, "balance": balance, "cost": spent, **facts}
            with replacing(target) as out:
                out.write(page(whole, _money_word, span).encode())
            lines.append(f"Wrote {target}")
        following = f"batchctl status {run.id}"
        return Report(
            "report", run.id, balance=balance, cost=spent, lines=tuple(lines), next=following, facts=facts,
            simulated=simulated,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _History:
    """Verdicts of one attempt, over every chunk that was judged in it."""

    attempt: int
    requests: int
    reasons: Counter[str]


def _facts(workspace: Workspace, run: queries.Run, balance: dict[str, int]) -> dict[str, Any]:
    db = workspace.ledger.db
    settings = queries.settings(db, run.id)[run.settings]
    found = books(db, run)
    done = balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    chunks = queries.chunks(db, run.id)
    attempts, by_chunk = _failures(workspace, run, chunks)
    purposes = [
        ("first attempts", found.first),
        ("reruns", found.reruns),
        ("live", found.live),
        ("dry runs", found.dry_runs),
    ]
    return {
        "job": run.job,
        "provider": settings.provider,
        "model": settings.model,
        "prompt_version": settings.prompt_version,
        "schema_version": settings.schema_version,
        "created_at": run.created_at,
        "usd_per_completed": None if found.known is None or not done else as_usd((found.known + done // 2) // done),
        "spend": [{"for": word, "usd": None if found.unpriced else as_usd(amount)} for word, amount in purposes],
        "usage": _usage(chunks),
        "failures": queries.reasons(db, run.id),
        "broken_rules": share_facts(broken_shares(workspace, run)),
        "attempts": [
            {"attempt": one.attempt, "requests": one.requests, "failures": dict(one.reasons.most_common())}
            for one in attempts
        ],
        "chunks": by_chunk,
        "turnaround": turnaround(db, run, settings.model),
        "publications": _publications(db, run),
        "forecast": _against_fact(db, run, found.first, known=not found.unpriced),
    }


def _publications(db: Any, run: queries.Run) -> list[dict[str, Any]]:
    """What this run was published to: of each target the newest time."""
    newest = {one.target: one for one in publications.of_run(db, run.id)}
    return [
        {"to": one.target, "state": one.state, "rows": one.rows, "at": one.done_at or one.opened_at}
        for one in newest.values()
    ]


def _usage(chunks: list[queries.Chunk]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for chunk in chunks:
        total.update(chunk.usage)
    return dict(total)


def _failures(
    workspace: Workspace, run: queries.Run, chunks: list[queries.Chunk]
) -> tuple[list[_History], list[dict[str, Any]]]:
    """What each attempt and each chunk brought, as judged."""
    attempts: dict[int, _History] = {}
    by_chunk = []
    for chunk in chunks:
        if chunk.state is not ChunkState.APPLIED:
            continue
        path = workspace.directory(run.id) / "results" / verdicts_name(chunk.number, chunk.attempt)
        counted = segments.column(path, "reason").slice(0, chunk.requests).value_counts().to_pylist()
        reasons = Counter({one["values"]: one["counts"] for one in counted if one["values"]})
        known = attempts.setdefault(chunk.attempt, _History(chunk.attempt, 0, Counter()))
        known.reasons.update(reasons)
        attempts[chunk.attempt] = _History(chunk.attempt, known.requests + chunk.requests, known.reasons)
        by_chunk.append(
            {
                "chunk": chunk.number,
                "attempt": chunk.attempt,
                "requests": chunk.requests,
                "failed": reasons.total(),
                "failures": dict(reasons.most_common()),
                "usd": None if chunk.cost is None else as_usd(chunk.cost),
            }
        )
    return [attempts[number] for number in sorted(attempts)], by_chunk


def turnaround(db: Any, run: queries.Run, model: str) -> dict[str, Any]:
    """Seconds from sent to ended: this run's batches, and every earlier one of the model in this workspace."""
    mine: list[dict[str, Any]] = []
    history: list[int] = []
    for one in queries.turnarounds(db, model):
        seconds = int((_instant(one.ended_at) - _instant(one.sent_at)).total_seconds())
        if one.run == run.id:
            mine.append({"chunk": one.chunk, "requests": one.requests, "seconds": seconds})
        else:
            history.append(seconds)
    return {
        "batches": mine,
        "p50_seconds": quantile([one["seconds"] for one in mine], 50),
        "p90_seconds": quantile([one["seconds"] for one in mine], 90),
        "history_batches": len(history),
        "history_p50_seconds": quantile(history, 50),
        "history_p90_seconds": quantile(history, 90),
    }


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def quantile(values: list[int], percent: int) -> int | None:
    """Nearest rank: a turnaround that was seen, not one in between."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)] if values else None


def _against_fact(db: Any, run: queries.Run, first: int, *, known: bool) -> dict[str, Any] | None:
    """The last dry run's forecast for the batch lane beside what the first attempts did cost; None without one."""
    dry = queries.last_dry_run(db, run.settings)
    expected = None if dry is None else dry.report.get("forecast")
    if not expected or expected["usd"] is None:
        return None
    first_chunks = [one for one in queries.chunks(db, run.id) if one.attempt == 1]
    if any(one.lane != BATCH for one in first_chunks):
        return None  # the forecast is for the batch lane
    done = all(one.state is ChunkState.APPLIED for one in first_chunks)
    fact = first if known and done else None
    low, high = expected["usd_low"], expected["usd_high"]
    held = None
    if fact is not None and low is not None and high is not None:
        held = picos(Decimal(low)) <= fact <= picos(Decimal(high))
    return {
        "usd": expected["usd"],
        "usd_low": low,
        "usd_high": high,
        "usd_fact": None if fact is None else as_usd(fact),
        "inside": held,
        "answers": expected["answers"],
        "method": expected["method"],
    }


def _failed_rows(workspace: Workspace, run: queries.Run) -> list[dict[str, Any]]:
    """The first failed rows with their text, from the rerun file."""
    path = workspace.directory(run.id) / "rerun.jsonl"
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [orjson.loads(line) for line in itertools.islice(file, TEXT_ROWS)]


def _money_word(amount: str | None) -> str:
    return "unknown" if amount is None else usd_text(picos(Decimal(amount)))


def _lines(run: queries.Run, balance: dict[str, int], spent: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The same figures for people."""
    done = balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    headline = f"{_money_word(facts['usd_per_completed'])} per completed row" if done else "no row is completed yet"
    lines = [f"{run.id}   {headline}   {facts['provider']}/{facts['model']}"]
    if done:
        per = _money_word(spent["usd_per_1000_completed"])
        lines.append(f"  {done:,} completed rows for {_money_word(spent['usd'])}; {per} per 1,000")
    lines += [f"    {one['for']:<16} {_money_word(one['usd']):>12}" for one in facts["spend"]]
    if spent["unmetered"]:
        lines.append(
            f"  {spent['unmetered']:,} requests nobody gave tokens for: in all at most {_money_word(spent['usd_at_most'])}"
        )
    if spent["prices_from"]:
        lines.append(f"  prices from {spent['prices_from']}")
    for one in facts["attempts"]:
        failed = sum(one["failures"].values())
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in one["failures"].items())
        sent = plural(one["requests"], "request")
        lines.append(f"  attempt {one['attempt']}   {sent}, {failed:,} failed   {kinds}".rstrip())
    for one in facts["broken_rules"]:
        lines.append(
            f"  broken over the run: {one['name']}: {one['share']:.1%}, at most {one['max_share'] * 100:g}% allowed"
        )
    taken = facts["turnaround"]
    if taken["p50_seconds"] is not None:
        line = f"  turnaround   p50 {span(taken['p50_seconds'])}, p90 {span(taken['p90_seconds'])}"
        if taken["history_batches"]:
            line += (
                f"   earlier here: p50 {span(taken['history_p50_seconds'])}, p90 {span(taken['history_p90_seconds'])}"
            )
            line += f" ({plural(taken['history_batches'], 'batch', 'batches')})"
        lines.append(line)
    for one in facts["publications"]:
        went = "begun and not finished" if one["rows"] is None else f"{one['rows']:,} rows"
        lines.append(f"  published    {one['to']}   {went}, {one['at']}")
    expected = facts["forecast"]
    if expected is not None:
        fact = "" if expected["usd_fact"] is None else f", it was {_money_word(expected['usd_fact'])}:"
        ends = ""
        if expected["usd_low"] is not None:
            ends = f" ({_money_word(expected['usd_low'])} to {_money_word(expected['usd_high'])})"
        lines.append(f"  forecast {_money_word(expected['usd'])}{ends}{fact} {VERDICTS[expected['inside']]}")
    return lines


def span(seconds: int) -> str:
    """`45 s`, `12 min`, `1 h 22`."""
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60:02d}"
