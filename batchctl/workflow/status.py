"""Where everything is: runs, chunks, the row balance. Offline, instant, and while another process writes."""

from __future__ import annotations

from datetime import UTC, datetime

from batchctl.ledger import queries
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import Exit
from batchctl.model.rows import FAILED, RowState
from batchctl.workflow import deadline
from batchctl.workflow.money import cost, cost_line
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.standing import broken_shares, chunk_lines, is_simulated, share_facts
from batchctl.workflow.workspace import Options, opened


def status(options: Options) -> Report:
    """The newest run of the job (or the named one) and the list of all runs."""
    with opened(options, write=False) as workspace:
        run = workspace.run
        db = workspace.ledger.db
        balance = queries.balance(db, run.id)
        chunks = queries.chunks(db, run.id)
        intents = queries.last_intents(db, run.id)
        settings = queries.settings(db, run.id)[run.settings]
        others = [one.id for one in queries.runs(db, run.job) if one.id != run.id]
        lines = [f"{run.id}   {settings.provider}/{settings.model}   prepared {run.created_at}"]
        lines += chunk_lines(workspace, run)
        lines += [f"  {reason:<22} {count:>8,} rows" for reason, count in queries.reasons(db, run.id).items()]
        broken = broken_shares(workspace, run)
        lines += [f"  broken over the run: {one.words}" for one in broken]
        lines += [line for line in [cost_line(db, run, balance)] if line]
        lines += [line for line in [deadline.told(workspace, run)] if line]
        if others:
            lines.append(f"  other runs: {', '.join(others[-5:])}" + (" ..." if len(others) > 5 else ""))
        left = [one for one in queries.unfinished(db, run.job) if one != run.id]
        lines += [f"  {one} is not finished: batchctl poll {one} --wait" for one in left]
        facts = {
            "job": run.job,
            "provider": settings.provider,
            "model": settings.model,
            "created_at": run.created_at,
            "reasons": queries.reasons(db, run.id),
            "lane": workspace.lane(run),
            "deadline": None if (at := deadline.due(workspace, run)) is None else at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "deadline_missed": deadline.missed(workspace, run),
            "broken_rules": share_facts(broken),
            "runs": [one.id for one in queries.runs(db)],
            "unfinished": queries.unfinished(db, run.job),
            "chunks": [
                {
                    "chunk": one.number,
                    "attempt": one.attempt,
                    "state": str(one.state),
                    "requests": one.requests,
                    "vendor_status": intent.vendor_status if (intent := intents.get(one.number)) else None,
                    "batch_id": intent.batch_id if intent else None,
                    "copies": one.copies,
                    "bytes": one.bytes,
                    "sent_at": intent.sent_at if intent else None,
                    "ended_at": intent.ended_at if intent else None,
                    "age_seconds": _age(intent) if one.state is ChunkState.SUBMITTED else None,
                }
                for one in chunks
            ],
        }
        code, following = _next(
            workspace_run=run.id,
            balance=balance,
            chunks=chunks,
            sent=queries.was_submitted(db, run.id),
            results=str(workspace.directory(run.id) / "results.jsonl"),
        )
        if broken and code in (Exit.OK, Exit.ATTENTION):
            code = Exit.GATE
        return Report(
            "status",
            run.id,
            code,
            balance,
            cost(db, run, balance),
            tuple(lines),
            following,
            facts,
            simulated=is_simulated(workspace),
        )


def _age(intent: queries.Intent | None) -> int | None:
    if intent is None or intent.sent_at is None:
        return None
    sent = datetime.strptime(intent.sent_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max(0, int((datetime.now(UTC) - sent).total_seconds()))


def _next(
    *, workspace_run: str, balance: dict[str, int], chunks: list[queries.Chunk], sent: bool, results: str
) -> tuple[Exit, str]:
    """Status reports; it judges nothing: the exit code is 0 unless rows need a person."""
    if balance[RowState.HELD]:
        return Exit.UNKNOWN, f"batchctl resolve {workspace_run}"
    if any(one.state is ChunkState.FETCHED for one in chunks):
        return Exit.PENDING, f"batchctl validate {workspace_run}"
    if balance[RowState.QUEUED] and not sent:
        return Exit.PENDING, f"batchctl submit {workspace_run}"
    if balance[RowState.QUEUED] or balance[RowState.SUBMITTED]:
        return Exit.PENDING, f"batchctl poll {workspace_run} --wait"
    failed = sum(balance[state] for state in FAILED)
    if failed:
        return Exit.ATTENTION, f"batchctl rerun {workspace_run}   ({plural(failed, 'failed row')})"
    if balance[RowState.REVIEW_REQUIRED]:
        return Exit.ATTENTION, f"batchctl review list {workspace_run}"
    return Exit.OK, f"use {results}"
