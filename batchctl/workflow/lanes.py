"""Which lane a run takes when the job file leaves it open (`prefer = "auto"`), with one plain reason."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal

from batchctl.ledger import chosen, queries
from batchctl.model.errors import UsageError
from batchctl.prices import picos, usd_text
from batchctl.workflow import money
from batchctl.workflow.deadline import due, told
from batchctl.workflow.report import span, turnaround
from batchctl.workflow.reports import plural
from batchctl.workflow.submit import SENDABLE
from batchctl.workflow.workspace import Workspace

AUTO = "auto"
FEW_ROWS = 3
LONG_TOKENS = 16_000
RUNS_IN_BACKGROUND = ("openai", "emulator")
PROMISED_SECONDS = 86_400
"""What every provider here promises for a batch: it ends within a day (their batch guides, read 2026-11-21)."""


def settle(workspace: Workspace, run: queries.Run) -> None:
    """Put on record the lane that was asked for, or choose one and say why. What the job file names needs no record."""
    wanted = workspace.options.lane or run.lane or workspace.policy.lane.prefer
    because = "asked for"
    if wanted == AUTO:
        wanted, because = _chosen(workspace, run)
        workspace.options.note(f"lane: {wanted}; {because}")
    if wanted != money.BATCH and not workspace.frozen_plan().codec().traits.live:
        raise UsageError(
            f"{workspace.frozen_plan().job.model.provider} answers in batch only",
            where="[lane] prefer",
            effect="nothing was sent",
            hint='use prefer = "batch"',
        )
    workspace.options.event("route", run=run.id, lane=wanted, why=because)
    workspace.chosen_lane = wanted
    if wanted != run.lane and (because != "asked for" or workspace.options.lane is not None):
        with workspace.ledger.transaction() as db:
            chosen.set_lane(db, run.id, wanted, because=because)


def _chosen(workspace: Workspace, run: queries.Run) -> tuple[str, str]:
    db = workspace.ledger.db
    settings = queries.settings(db, run.id)[run.settings]
    waiting = [one for one in queries.chunks(db, run.id) if one.state in SENDABLE]
    rows = plural(sum(one.requests for one in waiting), "row")
    if not workspace.frozen_plan().codec().traits.live:
        return money.BATCH, "files are handed out whole"
    limits = workspace.frozen_plan().codec().limits(settings.endpoint)
    if any(one.requests < limits.least_requests for one in waiting):
        return money.LIVE, f"{settings.provider} takes no batch with fewer than {limits.least_requests:,} requests"
    if settings.provider == "openai-compatible":
        return money.LIVE, "few compatible servers have a batch API (`--lane batch` if yours has)"
    cap = money.output_cap(workspace.frozen_plan()) or 0
    few = sum(one.requests for one in waiting) <= FEW_ROWS
    if few and cap >= LONG_TOKENS and settings.endpoint == "/v1/responses" and settings.provider in RUNS_IN_BACKGROUND:
        return money.BACKGROUND, f"{rows} of up to {cap:,} output tokens: one long task, tracked at the provider"
    left = _seconds_left(workspace, run)
    usual = turnaround(db, run, settings.model)["history_p90_seconds"]
    slow = PROMISED_SECONDS if usual is None else usual
    if left is None or slow <= left:
        ends = "" if left is None else f", and batches end within {span(slow)}: there are {span(int(left))}"
        return money.BATCH, f"nobody waits, {rows}{ends}"
    slowly = f"nine in ten batches here took up to {span(slow)}" if usual else "a batch may take a day"
    why = f"there are {span(max(0, int(left)))}, and {slowly}"
    budget = money.budget_of(workspace, run)
    if budget is not None:
        room = money.room(workspace, run) or 0
        most = [money.most_of(workspace, run, one, "live") for one in waiting]
        total = sum(one or 0 for one in most)
        if None in most or total > room:
            can = "its price is not bounded" if None in most else f"it can cost {usd_text(total)}"
            return money.BATCH, f"{why}; but live {can}, and the budget of {usd_text(budget)} has no room"
    return money.LIVE, f"{rows}; {why}"


def prospects(workspace: Workspace, run: queries.Run) -> list[str]:
    """What is known of the bill and the time when a run is sent: forecast, budget, deadline, and how long it usually takes."""
    db = workspace.ledger.db
    lines = []
    forecast, budget = money.cost(db, run)["forecast_usd"], money.budget_of(workspace, run)
    if forecast is not None and workspace.lane(run) == money.BATCH:
        lines.append(f"  forecast              {usd_text(picos(Decimal(forecast)))} for first attempts")
    if budget is not None:
        spent = money.books(db, run).booked
        lines.append(f"  budget                {usd_text(spent)} of {usd_text(budget)} spent")
    lines += [one for one in [told(workspace, run)] if one]
    taken = turnaround(db, run, queries.settings(db, run.id)[run.settings].model)
    if taken["history_batches"] and workspace.lane(run) == money.BATCH:
        lines.append(
            f"  usual time            p50 {span(taken['history_p50_seconds'])}, p90 {span(taken['history_p90_seconds'])}"
            f" ({plural(taken['history_batches'], 'earlier batch', 'earlier batches')} of this model)"
        )
    return lines


def _seconds_left(workspace: Workspace, run: queries.Run) -> float | None:
    """Until the deadline, or until `--max-wait` is over; None without either."""
    at = due(workspace, run)
    left = [] if at is None else [at.timestamp() - datetime.fromtimestamp(time.time(), UTC).timestamp()]
    if workspace.options.max_wait_seconds is not None:
        left.append(workspace.options.max_wait_seconds)
    return min(left, default=None)
