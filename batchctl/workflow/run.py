"""Everything, in order, as far as it can go now: prepare, dry-run, submit, poll, validate, automatic reruns, publish.

Safe to call at any moment.
"""

from __future__ import annotations

from dataclasses import replace

from batchctl.ledger import queries
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import BatchctlError, Exit, OutcomeUnknown, ProviderError, UsageError
from batchctl.workflow import canary, deadline, dry_run, lanes, live, money, notify, reconcile
from batchctl.workflow.poll import looked
from batchctl.workflow.prepare import gate_passed, prepared
from batchctl.workflow.publish import Ways, after_run
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.rerun import automatic
from batchctl.workflow.results import write_results
from batchctl.workflow.submit import SENDABLE, consent, send_waiting
from batchctl.workflow.validate import judged, report
from batchctl.workflow.workspace import Options, Workspace, opened

FINISHED = (ChunkState.APPLIED, ChunkState.WITHDRAWN)


def run(
    options: Options, *, resend_changed: bool = False, keep_done: bool = False, allow_pending_review: bool = False
) -> Report:
    """Carry the job on from wherever it is. Sends nothing that was sent before, whatever the last call did."""
    with opened(options, write=True) as workspace, notify.watching(workspace):
        if workspace.job is None:
            raise UsageError("run takes a job file", effect="nothing was done", hint="batchctl run job.toml")
        workspace.lock()
        workspace.create_ledger()
        lines: list[str] = []
        early = canary.look_after(workspace, workspace.run, "run") if workspace.has_run else None
        if early is not None:
            return early
        if _needs_preparing(workspace):
            first = prepared(workspace, resend_changed=resend_changed, keep_done=keep_done)
            lines += first.lines
            if first.run is not None:
                workspace.turn_to(first.run)  # a target that names an older run: its rows are done, these are not
        current = workspace.run
        _report_edits(workspace)
        money.settle_budget(workspace, current)
        lanes.settle(workspace, current)
        gate = _gate(workspace, current, lines)
        if gate is not None:
            return gate
        unsent = _send(workspace, current, lines)
        done = looked(
            workspace, current, live_first=unsent is None
        )  # whatever became of the sending: paid answers vanish, they are fetched first
        quarantined = judged(workspace, current)
        again = False
        while unsent is None and not done.problems and (rows := automatic(workspace, current, again=again)):
            lines.append(f"New attempt for {plural(rows, 'row')}, as [retry] says")
            unsent, again = _send(workspace, current, lines), True
            done = looked(workspace, current)
            quarantined += judged(workspace, current)
        write_results(workspace.state, workspace.ledger.db, current)
        if done.problems:
            raise done.problems[0]
        chunks = queries.chunks(workspace.ledger.db, current.id)
        if unsent is not None and any(one.state in SENDABLE or live.begun(one) for one in chunks):
            raise unsent
        final = report(workspace, current, "run", quarantined=quarantined, first=tuple(lines))
        final = after_run(workspace, current, final, Ways(allow_pending_review))
        if final.exit is Exit.PENDING and not options.wait:
            return replace(final, next=f"batchctl run {workspace.job_path}   (again later, or with --wait)")
        if final.exit is Exit.PENDING and options.max_wait_seconds is not None:
            final = replace(final, next=f"batchctl run {workspace.job_path}   (goes on; nothing is sent twice)")
        return notify.about(workspace, current, final)


def _needs_preparing(workspace: Workspace) -> bool:
    """A run in flight is carried on; one that is finished, or of which nothing was sent, meets the source again."""
    if not workspace.has_run:
        return True
    current = workspace.run
    chunks = queries.chunks(workspace.ledger.db, current.id)
    unsent = not queries.was_submitted(workspace.ledger.db, current.id)
    done = all(one.state in FINISHED for one in chunks) and not deadline.owes_tail(workspace, current)
    return unsent or done


def _report_edits(workspace: Workspace) -> None:
    """A job edited while its run is in flight: the run goes on as it was prepared, and says so."""
    now, then = workspace.current_plan(), workspace.frozen_plan()
    if (
        now is not None
        and now.settings != then.settings
        and queries.was_submitted(workspace.ledger.db, workspace.run.id)
    ):
        workspace.options.note(
            f"{workspace.run.id} goes on with the prompt, schema, model and params it was prepared with; "
            f"{workspace.job_path} has others now"
        )


def _gate(workspace: Workspace, current: queries.Run, lines: list[str]) -> Report | None:
    """Consent and dry run, before the first create of a run. A report when the gate stays shut, else None."""
    db = workspace.ledger.db
    waiting = [one for one in queries.chunks(db, current.id) if one.state in SENDABLE]
    if current.stopped or not waiting or queries.was_submitted(db, current.id):
        return None
    consent(workspace, sum(one.requests for one in waiting), len(waiting))
    plan = workspace.frozen_plan()
    if not workspace.policy.sample.rows or not plan.codec().traits.live or gate_passed(workspace, plan):
        canary.require_passed(workspace, current)
        return None
    tried = dry_run.tried(workspace, current)
    lines += tried.lines
    if tried.exit is Exit.OK:
        canary.require_passed(workspace, current)
    return None if tried.exit is Exit.OK else replace(tried, command="run", lines=tuple(lines))


def _send(workspace: Workspace, current: queries.Run, lines: list[str]) -> BatchctlError | None:
    """Submit what waits; what stopped it, if anything did."""
    chunks = queries.chunks(workspace.ledger.db, current.id)
    if not any(one.state in (*SENDABLE, ChunkState.INTENT) or live.begun(one) for one in chunks):
        return None
    if queries.run(workspace.ledger.db, current.id).stopped:
        workspace.options.note(f"{current.id} was cancelled; its waiting chunks are sent only by `batchctl submit`")
        return None
    provider = workspace.provider(workspace.frozen_plan())
    try:
        reconcile.settle(workspace, provider, current)
        sent = send_waiting(workspace, provider, current)
    except (ProviderError, OutcomeUnknown) as error:
        return error
    if sent.chunks and workspace.lane(current) == money.LIVE:
        lines.append(f"Asked {plural(len(sent.chunks), 'chunk')} row by row, live, at {provider.name}")
    elif sent.chunks and workspace.lane(current) == money.BACKGROUND:
        lines.append(f"Created the requests of {plural(len(sent.chunks), 'chunk')} in background at {provider.name}")
    elif sent.chunks:
        lines.append(f"Sent {plural(len(sent.chunks), 'batch', 'batches')} to {provider.name}")
    return sent.stopped_by
