"""Source rows to checked request chunks. Nothing leaves the machine and no key is needed.

Everything is built in `<run>.part/`, renamed once, and counts when the ledger names it.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from batchctl.chunks.names import copies_name, lines_name, rows_name
from batchctl.files import crash_point, make_directory, sync_directory, sync_file
from batchctl.ledger import queries, transitions
from batchctl.ledger.canary import withdrawn_chunks
from batchctl.ledger.transitions import NewRun
from batchctl.model.errors import Exit, StorageFailed, UsageError
from batchctl.tables.source import Source, SourceSpec, open_source, spool_of
from batchctl.workflow.money import cost
from batchctl.workflow.outgoing import check_targets
from batchctl.workflow.packing import Outcome, Packing
from batchctl.workflow.rejects import Rejects
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.requests import settings_row
from batchctl.workflow.rules import check_rules
from batchctl.workflow.workspace import SENT, Options, Plan, Workspace, opened


def prepare(
    options: Options, *, rows: str | None = None, resend_changed: bool = False, keep_done: bool = False
) -> Report:
    """Write request chunks for the rows of the job's source, or of the file `rows`.

    A source and job that are already prepared give the same run again. Rows an earlier run of the job has are left
    out. Raises `UsageError` for bad input and `ConsentMissing` when a changed prompt, schema or model would buy done
    rows again; nothing is written then.
    """
    with opened(options, write=True) as workspace:
        if workspace.job is None:
            raise UsageError("prepare takes a job file", effect="nothing was written", hint="batchctl prepare job.toml")
        return prepared(workspace, rows=rows, resend_changed=resend_changed, keep_done=keep_done)


def prepared(
    workspace: Workspace, *, rows: str | None = None, resend_changed: bool = False, keep_done: bool = False
) -> Report:
    """`prepare` in an open workspace."""
    workspace.lock()
    ledger = workspace.create_ledger()
    plan = workspace.current_plan()
    assert plan is not None
    job = plan.job
    _label_is_honest(ledger.db, plan)
    check_targets(plan)
    source = _source(workspace, plan, rows)
    check_rules(plan, source.selected)
    earlier = queries.runs(ledger.db, job.name)
    newest = earlier[-1] if earlier and earlier[-1].shape_sha256 == plan.shape else None
    if newest is not None and newest.source_stamp == source.stamp():
        return _report(workspace, newest, plan, again=True)
    unsent = [run for run in earlier if not queries.was_sent(ledger.db, run.id)]
    halted = [one for one in earlier if one not in unsent and not queries.was_submitted(ledger.db, one.id)]
    number = queries.last_number(ledger.db, job.name) + 1
    run_id = f"{job.name}-{number:04d}"
    part = workspace.state / f"{run_id}.part"
    _check_unknown(workspace.state / run_id)
    for rubbish in (part, workspace.state / run_id):  # left by a crash: no ledger row names it
        shutil.rmtree(rubbish, ignore_errors=True)
    make_directory(part / "chunks")
    try:
        withdrawn = {run.id for run in unsent}
        before = [run for run in earlier if run.id not in withdrawn]
        with Rejects(part / "rejects.jsonl", source) as rejects:
            work = Packing(workspace, plan, source, run_id, part, before, rejects=rejects, from_file=rows is not None)
            packed = work.read()
            same_place = rows is None or newest is None or newest.source == source.names
            if newest is not None and newest.rows_sha256 == work.rows_sha256 and same_place:
                return _report(workspace, newest, plan, again=True)
            outcome = work.build(packed, resend_changed=resend_changed, keep_done=keep_done)
        _tell(workspace, outcome, before)
        if outcome.filtered == outcome.seen:
            raise _none_wanted(plan, outcome.seen)
        if not outcome.chunks and not outcome.rejected:
            return _nothing_new(workspace, plan, outcome, before)
        plan.freeze(part)
        for name in os.listdir(part):
            if (part / name).is_file():
                sync_file(part / name)
        sync_directory(part / "chunks")
        make_directory(part / "results")
        sync_directory(part)
        os.replace(part, workspace.state / run_id)
        sync_directory(workspace.state)
        crash_point("K2")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    run = NewRun(
        id=run_id,
        job=job.name,
        number=number,
        job_file=_relative(workspace),
        source=source.names,
        source_stamp=source.stamp(),
        rows_sha256=work.rows_sha256,
        shape_sha256=plan.shape,
        settings=plan.settings,
        seen=outcome.seen,
        rejected=outcome.rejected,
        known=outcome.known,
    )
    with ledger.transaction() as db:
        for old in unsent:
            transitions.withdraw(db, old.id, because=f"replaced by {run_id} before anything was sent")
        for old in halted:
            transitions.withdraw_waiting(db, old.id, because=f"replaced by {run_id} before more than a canary was sent")
        transitions.add_run(db, run, settings_row(plan, "."), outcome.chunks)
    crash_point("K3")
    for old in unsent:
        shutil.rmtree(workspace.state / old.id, ignore_errors=True)
    for old in halted:
        tidy(workspace, old)
    return _report(workspace, queries.run(ledger.db, run_id), plan, notes=work.notes, columns=outcome)


def _check_unknown(directory: Path) -> None:
    """Refuse to take the place of a run that the ledger does not name, if it was sent: a crash leaves only unsent ones."""
    if (directory / SENT).exists():
        raise StorageFailed(
            "the ledger does not know this run, and it was sent",
            where=str(directory),
            effect="nothing was done: its rows may be paid for already",
            hint="restore the ledger.db and the ledger.journal that belong to it, or move the directory away to begin again",
            code="damaged",
        )


def _source(workspace: Workspace, plan: Plan, rows: str | None) -> Source:
    """The job's source, or the file of rows that was given instead."""
    job = plan.job
    return open_source(
        SourceSpec(
            paths=(rows,) if rows else job.source.path,
            format=None if rows and rows != "-" else job.source.format,
            encoding=job.source.encoding,
            columns=job.source.columns or None,
            base=Path() if rows else job.base,
            spool=spool_of(workspace.state, job.name),
        )
    )


def renewed(workspace: Workspace) -> Report | None:
    """Prepare anew a run of which nothing was sent and whose job was edited since; the workspace is about the new one then.

    None when there is no need, or no way: rows from stdin or from a file of their own are not read again.
    """
    plan, run, db = workspace.current_plan(), workspace.run, workspace.ledger.db
    if plan is None or plan.shape == run.shape_sha256 or "-" in plan.job.source.path or queries.was_sent(db, run.id):
        return None
    if queries.runs(db, run.job)[-1].id != run.id or _source(workspace, plan, None).names != run.source:
        return None
    found = prepared(workspace)
    if found.run is not None:
        workspace.turn_to(found.run)
    return found


def _tell(workspace: Workspace, outcome: Outcome, before: list[queries.Run]) -> None:
    """What the source holds, for a log."""
    copies = sum(one.copies for one in outcome.chunks)
    facts = {"rows": outcome.seen, "known": outcome.known, "rejected": outcome.rejected, "copied": copies}
    new = sum(one.requests for one in outcome.chunks) + copies - outcome.carried
    workspace.options.event("source.scanned", **facts, new=new, carried_over=outcome.carried)
    if outcome.carried:
        earlier = [one.id for one in before]
        why = "failed in an earlier run, without a usable answer"
        workspace.options.event("carry_over", rows=outcome.carried, **{"from": earlier[-1]}, why=why)


def _none_wanted(plan: Plan, seen: int) -> UsageError:
    return UsageError(
        f"[source] where holds for none of {plural(seen, 'row')}",
        where=(plan.where["job"], plan.job.source.where or ""),
        effect="nothing was written",
        hint="correct it: CSV values are text, so compare with quotes or int(row.x)",
    )


def _relative(workspace: Workspace) -> str:
    assert workspace.job_path is not None
    return os.path.relpath(workspace.job_path.resolve(), workspace.state.resolve().parent)


def _label_is_honest(db: Any, plan: Plan) -> None:
    """A prompt label names one text: changed text under an unchanged label would mix two prompts in one column."""
    version = plan.job.prompt.version
    if version is None:
        return
    sent = queries.prompt_under_version(db, plan.job.name, version)
    if sent is not None and sent != plan.prompt_sha256:
        raise UsageError(
            f"the prompt changed, but its version is still `{version}`, under which rows were sent",
            where=plan.where["prompt"],
            effect="nothing was written",
            hint="raise [prompt] version in the job file, or take the change back",
        )


def _nothing_new(workspace: Workspace, plan: Plan, outcome: Outcome, before: list[queries.Run]) -> Report:
    newest = before[-1]
    balance = queries.balance(workspace.ledger.db, newest.id)
    return Report(
        "prepare",
        newest.id,
        Exit.OK,
        balance,
        cost(workspace.ledger.db, newest, balance),
        (f"Nothing new: all {plural(outcome.seen, 'row')} of the source are in earlier runs already",),
        f"batchctl status {newest.id}",
        {"prepared": False, "seen": outcome.seen, "known": outcome.known},
        simulated=plan.job.model.provider == "emulator",
    )


def _report(
    workspace: Workspace,
    run: queries.Run,
    plan: Plan,
    *,
    again: bool = False,
    notes: tuple[str, ...] = (),
    columns: Outcome | None = None,
) -> Report:
    db = workspace.ledger.db
    chunks = [one for one in queries.chunks(db, run.id) if one.attempt == 1]
    requests = sum(one.requests for one in chunks)
    copies = sum(one.copies for one in chunks)
    size = sum(one.bytes for one in chunks)
    lines = [
        f"Run {run.id} is prepared already: same source, same job" if again else f"Prepared run {run.id}",
        f"  rows in source      {run.seen:>12,}",
    ]
    if columns is not None and columns.filtered:
        lines.append(f"  left out by where   {columns.filtered:>12,}")
    if run.known:
        lines.append(f"  in earlier runs     {run.known:>12,}   not sent again")
    if columns is not None and columns.carried:
        lines.append(f"  carried over        {columns.carried:>12,}   failed in an earlier run, sent again")
    if run.rejected:
        why = "" if columns is None else ", ".join(f"{n:,} {why}" for why, n in columns.rejects_by_reason.items())
        lines.append(f"  rejected            {run.rejected:>12,}   {why}".rstrip() + f" -> {run.id}/rejects.jsonl")
    if copies:
        lines.append(f"  identical requests  {copies:>12,}   paid once, answer copied")
    lines.append(f"  requests to send    {requests:>12,}   in {plural(len(chunks), 'chunk')}, {size / 1e6:,.1f} MB")
    lines += [f"  note: {one}" for one in notes[:5]]
    passed = gate_passed(workspace, plan)
    tried = passed or not plan.job.sample.rows or not plan.codec().traits.live
    following = f"batchctl submit {run.id}" if tried else f"batchctl dry-run {run.id}"
    if again:
        following = f"batchctl run {workspace.job_path}"
    facts = {
        "prepared": not again,
        "seen": run.seen,
        "known": run.known,
        "requests": requests,
        "rejected": run.rejected,
        "copied": copies,
        "bytes": size,
        "chunks_written": len(chunks),
        "notes": list(notes),
        "directory": str(workspace.directory(run.id)),
        "changed": 0 if columns is None else columns.changed,
        "filtered": 0 if columns is None else columns.filtered,
        "carried_over": 0 if columns is None else columns.carried,
    }
    return Report(
        "prepare",
        run.id,
        Exit.OK,
        queries.balance(db, run.id),
        cost(db, run, queries.balance(db, run.id)),
        tuple(lines),
        following,
        facts,
        simulated=plan.job.model.provider == "emulator",
    )


def tidy(workspace: Workspace, run: queries.Run) -> None:
    """Delete the files of chunks that will never be sent: they hold the texts of rows that others hold too."""
    directory = workspace.directory(run.id) / "chunks"
    for number in withdrawn_chunks(workspace.ledger.db, run.id):
        for name in (lines_name(number), rows_name(number), copies_name(number)):
            (directory / name).unlink(missing_ok=True)


def gate_passed(workspace: Workspace, plan: Plan) -> bool:
    """Whether a dry run for exactly this prompt, schema, model and params passed, and is young enough."""
    last = queries.last_dry_run(workspace.ledger.db, plan.settings)
    return last is not None and last.passed and time.time() - last.epoch <= workspace.policy.sample.max_age
