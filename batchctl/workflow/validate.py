"""Judge what came back, write `results.jsonl` and the rerun file. Free, repeatable, sends nothing.

The schema is the one in the job file now: a schema that was wrong is corrected and the stored answers are judged again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name
from batchctl.files import crash_point, replacing, sha256_of
from batchctl.judging.wires import READERS
from batchctl.ledger import queries, transitions
from batchctl.ledger.decisions import drop_decision
from batchctl.ledger.queries import Chunk, Intent
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import Exit, StorageFailed, UsageError
from batchctl.model.rows import FAILED, Decision, Reason, RowState, Usage
from batchctl.prices import Price
from batchctl.workflow import deadline, notify
from batchctl.workflow.decided import decisions
from batchctl.workflow.judge import Judged, Task, judge_chunk
from batchctl.workflow.money import BATCH, cost, cost_line, price_lane, price_of
from batchctl.workflow.poll import sends_by_itself
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.requests import RERUN_COLUMNS
from batchctl.workflow.results import write_results
from batchctl.workflow.rules import caps, check_rules, columns_of, digest, rule_book
from batchctl.workflow.standing import broken_shares, is_simulated, share_facts
from batchctl.workflow.submit import SENDABLE
from batchctl.workflow.tallying import TOKENS
from batchctl.workflow.tries import tries_before
from batchctl.workflow.workspace import Options, Plan, Workspace, opened


def validate(options: Options, *, again: bool = False, rerun_file: str | None = None) -> Report:
    """Judge every collected chunk that is not judged yet, or not with this schema; `again` judges all."""
    check_target(rerun_file)
    with opened(options, write=True) as workspace, notify.watching(workspace):
        run = workspace.run
        workspace.lock()
        quarantined = judged(workspace, run, again=again)
        write_results(workspace.state, workspace.ledger.db, run)
        if rerun_file is not None:
            copy_rerun(workspace.directory(run.id) / "rerun.jsonl", Path(rerun_file))
        return notify.about(workspace, run, report(workspace, run, "validate", quarantined=quarantined))


def judged(workspace: Workspace, run: queries.Run, *, again: bool = False) -> Counter[str]:
    """Judge what needs it; each chunk's verdicts count from its own transaction on. Lines that joined nothing, by kind."""
    db = workspace.ledger.db
    if run.is_purged:
        return Counter()  # there is nothing left to judge
    chunks = queries.chunks(db, run.id)
    current = workspace.current_plan()
    quarantined: Counter[str] = Counter()
    waiting = []
    for chunk in chunks:
        if chunk.state not in (ChunkState.FETCHED, ChunkState.APPLIED):
            continue
        plan = current or workspace.frozen_plan(chunk.settings)
        price = price_of(workspace, run, chunk.settings, price_lane(chunk.lane))
        if again or chunk.state is ChunkState.FETCHED or chunk.judged_with != judging_digest(plan, price):
            waiting.append((chunk, plan, price))
    intents = queries.last_intents(db, run.id)
    if waiting:
        check_rules(waiting[0][1], columns_of(workspace, run))
        stands = decisions(workspace.directory(run.id), db, run.id)
    for done, (chunk, plan, price) in enumerate(waiting, 1):
        _intact(workspace, chunk)
        kept, dropped = _still_valid(stands.get(chunk.number, {}), plan)
        task = replace(
            task_of(workspace, chunk, plan, superseded(workspace, chunk, chunks)),
            before=tries_before(workspace, chunk, chunks),
            decisions=kept,
            rates=None if price is None else price.rates,
        )
        result = judge_chunk(task)
        usd, unmetered = _booked(result, intents.get(chunk.number), price)
        crash_point("K14b")
        quarantined.update(result.quarantined)
        with workspace.ledger.transaction() as transaction:
            transitions.apply(
                transaction,
                run.id,
                chunk.number,
                verdicts_sha256=result.sha256,
                judged_with=judging_digest(plan, price),
                tallies=result.tallies,
                usage=result.usage,
                cost=usd,
                unmetered=unmetered,
                shares=result.shares,
                because="judged" if chunk.state is ChunkState.FETCHED else "judged again",
            )
            for position in dropped:
                because = "the edited or chosen answer does not match the schema any more"
                drop_decision(transaction, run.id, chunk.number, position, because=because)
        crash_point("K15")
        workspace.options.progress("validate", done, len(waiting))
    return quarantined


def _still_valid(stands: dict[int, Decision], plan: Plan) -> tuple[dict[int, Decision], list[int]]:
    """Decisions that stand under this schema, and the rows whose edited or chosen answer does not match it."""
    schema = plan.schema()
    dropped = [
        position
        for position, one in stands.items()
        if schema is not None and one.output is not None and schema.failure(orjson.loads(one.output)) is not None
    ]
    return {position: one for position, one in stands.items() if position not in dropped}, dropped


def _booked(result: Judged, intent: Intent | None, price: Price | None) -> tuple[int | None, int]:
    """What to book for a chunk, and how many of its requests nobody knows the tokens of.

    A request without a readable result has no tokens of its own. Where the provider gives a total for the batch, what
    the total has more than the rows is booked with the chunk, and nothing is left unknown. Without a total, no more
    requests can be unknown than the provider counted as finished and we have no tokens of.
    """
    total = None if intent is None else intent.usage
    finished = None if intent is None else intent.counts.get("completed")
    unknown = result.unmetered if finished is None else min(result.unmetered, max(0, finished - result.metered))
    if result.cost is None or price is None or total is None:
        return result.cost, unknown
    more = {name: total.get(name, 0) - result.usage[name] for name in TOKENS}
    if min(more.values()) < 0:
        return result.cost, unknown
    rates = price.rates
    if rates.long is None:
        return result.cost + rates.cost(Usage(**more)), 0
    return result.cost + rates.at_most(more["input_tokens"], more["output_tokens"]), 0


def judging_digest(plan: Plan, price: Price | None) -> str:
    """What verdicts depend on beside the results: a change judges stored answers again, free."""
    job = plan.job
    rates = "" if price is None else str(price.as_dict()["rates"])
    parts = [plan.schema_sha256 or "", job.output.parse, digest(job), rates, "4"]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def task_of(workspace: Workspace, chunk: Chunk, plan: Plan, superseded: pa.Array | None = None) -> Task:
    """What judging a chunk under a plan needs, without history, decisions and prices."""
    settings = queries.settings(workspace.ledger.db, chunk.run)[chunk.settings]
    directory = workspace.directory(chunk.run)
    names = sorted(chunk.results)
    sent_with = workspace.frozen_plan(chunk.settings)
    intent = queries.last_intents(workspace.ledger.db, chunk.run).get(chunk.number)
    return Task(
        chunks=directory / "chunks",
        results=directory / "results",
        number=chunk.number,
        attempt=chunk.attempt,
        requests=chunk.requests,
        copies=chunk.copies,
        files=tuple(one for one in names if one.endswith(".jsonl")),
        endpoint=settings.endpoint,
        wire=sent_with.wire,
        mode=sent_with.job.output.mode,
        schema_text=None if plan.schema_text is None else plan.schema_text.encode(),
        schema_where=plan.where["schema"],
        parse=plan.job.output.parse,
        review_refused=plan.job.review.refused,
        rules=rule_book(plan.job, plan.where["job"]),
        caps=caps(plan.job),
        calls=None if chunk.lane == BATCH else queries.calls_of(workspace.ledger.db, chunk.run, chunk.number),
        superseded=superseded,
        expired=intent is not None and intent.expired and not READERS[sent_with.wire].tells_expired,
        refused=next((one for one in names if one.endswith(".refused.json")), None),
    )


def _intact(workspace: Workspace, chunk: Chunk) -> None:
    """Results are judged only if they are the bytes that were collected."""
    directory = workspace.directory(chunk.run)
    wanted = {directory / "results" / name: sha256 for name, sha256 in chunk.results.items()}
    wanted[directory / "chunks" / rows_name(chunk.number)] = chunk.rows_sha256
    if chunk.copies_sha256:
        wanted[directory / "chunks" / copies_name(chunk.number)] = chunk.copies_sha256
    for path, sha256 in wanted.items():
        if not path.is_file() or sha256_of(path) != sha256:
            raise StorageFailed(
                "a stored file is not what was collected",
                where=str(path),
                effect="nothing was judged from it",
                hint="restore it from a backup; `batchctl check` names everything that is damaged",
                code="damaged",
            )


def superseded(workspace: Workspace, chunk: Chunk, chunks: list[Chunk]) -> pa.Array | None:
    """Positions that newer chunks of the run have taken over."""
    newer = [one for one in chunks if one.number > chunk.number and one.attempt > chunk.attempt]
    if not newer:
        return None
    base = workspace.directory(chunk.run) / "chunks"
    arrays = []
    for one in newer:
        arrays += segments.column(base / rows_name(one.number), "position").chunks
        if one.copies:
            arrays += segments.column(base / copies_name(one.number), "position").chunks
    return pa.chunked_array(arrays, pa.int64()).combine_chunks()


KINDS: dict[str, Literal["csv", "jsonl", "parquet"]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


def check_target(name: str | None) -> None:
    """Before any work: a place for a copy of the rerun file that cannot be written is said at once."""
    if name is None:
        return
    target = Path(name)
    if target.suffix.lower() not in KINDS:
        raise UsageError(
            f"cannot tell the format of `{target.name}`",
            where=str(target),
            effect="nothing was done",
            hint="end its name in .csv, .jsonl or .parquet",
        )
    if not target.parent.is_dir():
        raise UsageError(
            f"there is no directory `{target.parent}`",
            where="--rerun-file",
            effect="nothing was done",
            hint="create it, or name another place",
        )


def copy_rerun(source: Path, target: Path) -> None:
    """The rerun file in another place and form: CSV, JSONL or Parquet by suffix, which `check_target` has seen."""
    from batchctl.tables.writers import write_rows

    if not source.is_file():
        raise UsageError(
            "this run has no rerun file yet",
            where=str(source),
            effect="nothing was written",
            hint=f"`batchctl validate {source.parent.name}` writes it",
        )
    columns: dict[str, None] = {}
    with source.open("rb") as file:
        for line in file:
            columns.update(dict.fromkeys(orjson.loads(line)))
    if not columns:  # no row has failed: the same table, empty
        with source.with_name("results.jsonl").open("rb") as file:
            first = file.readline()
        columns = dict.fromkeys([*(orjson.loads(first)["row"] if first else ()), *RERUN_COLUMNS])
    with source.open("rb") as file, replacing(target) as out:
        write_rows(KINDS[target.suffix.lower()], out, (line.rstrip(b"\n") for line in file), columns=tuple(columns))


def report(
    workspace: Workspace,
    run: queries.Run,
    command: str,
    *,
    quarantined: Counter[str] | None = None,
    first: tuple[str, ...] = (),
) -> Report:
    """The state of a run after judging: counts by state and reason, and what to do next."""
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    reasons = queries.reasons(db, run.id)
    rows = max(balance["rows"], 1)
    lines = [*first]
    done = balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    lines.append(f"  completed          {done:>10,}   {done / rows:.1%}")
    lines += [f"  {reason:<18} {count:>10,}" for reason, count in reasons.items()]
    broken = broken_shares(workspace, run)
    lines += [f"  broken over the run: {one.words}" for one in broken]
    lines += [line for line in [cost_line(db, run, balance)] if line]
    for kind, count in sorted((quarantined or {}).items()):
        lines.append(f"  note: {plural(count, 'result line')} joined no row ({kind}); kept in results/")
    failed = sum(balance[state] for state in FAILED)
    directory = workspace.directory(run.id)
    lines.append(f"Wrote {directory / 'results.jsonl'} ({plural(balance['rows'], 'row')})")
    if failed:
        lines.append(f"Wrote {directory / 'rerun.jsonl'} ({plural(failed, 'failed row')})")
    code, following = _next(workspace, run, balance, failed, reasons)
    if command != "validate" and code is not Exit.UNKNOWN and deadline.missed(workspace, run):
        code = Exit.DEADLINE
    lines += [one for one in [deadline.told(workspace, run)] if one]
    if broken and code in (Exit.OK, Exit.ATTENTION, Exit.DEADLINE):
        code = Exit.GATE
    facts = {
        "reasons": reasons,
        "failed": failed,
        "results": str(directory / "results.jsonl"),
        "rerun": str(directory / "rerun.jsonl"),
        "quarantined": dict(quarantined or {}),
        "usage": usage(db, run.id),
        "broken_rules": share_facts(broken),
    }
    return Report(
        command,
        run.id,
        code,
        balance,
        cost(db, run, balance),
        tuple(lines),
        following,
        facts,
        simulated=is_simulated(workspace),
    )


def usage(db: object, run_id: str) -> dict[str, int]:
    """Token sums over every attempt of a run, failures included."""
    total: Counter[str] = Counter()
    for chunk in queries.chunks(db, run_id):  # type: ignore[arg-type]
        total.update(chunk.usage)
    return dict(total)


def _next(
    workspace: Workspace, run: queries.Run, balance: dict[str, int], failed: int, reasons: dict[str, int]
) -> tuple[Exit, str]:
    states = {one.state for one in queries.chunks(workspace.ledger.db, run.id)}
    if balance[RowState.HELD]:
        return Exit.UNKNOWN, f"batchctl resolve {run.id}"
    if states & set(SENDABLE) and not sends_by_itself(workspace, run) and not balance[RowState.SUBMITTED]:
        return Exit.PENDING, f"batchctl submit {run.id}"
    if balance[RowState.QUEUED] or balance[RowState.SUBMITTED]:
        return Exit.PENDING, f"batchctl poll {run.id} --wait"
    if failed and set(reasons) == {Reason.EXPIRED}:
        return Exit.DEADLINE, f"batchctl rerun {run.id} --only expired"
    if failed:
        return Exit.ATTENTION, f"batchctl rerun {run.id}"
    if balance[RowState.REVIEW_REQUIRED]:
        return Exit.ATTENTION, f"batchctl review list {run.id}"
    return Exit.OK, f"use {workspace.directory(run.id) / 'results.jsonl'}"
