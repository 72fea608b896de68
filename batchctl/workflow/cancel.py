"""Stop at the provider. What finished is still collected and booked; rows that never ran can be rerun."""

from __future__ import annotations

from batchctl.ledger import queries, transitions
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import ConsentMissing, Exit
from batchctl.workflow import reconcile
from batchctl.workflow.money import cost
from batchctl.workflow.poll import looked
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.standing import chunk_lines, is_simulated
from batchctl.workflow.stopping import stop_batches
from batchctl.workflow.submit import SENDABLE
from batchctl.workflow.workspace import Options, opened


def cancel(options: Options) -> Report:
    """Ask the provider to stop every batch of the run that is running, then look once (or, with `--wait`, until ended)."""
    with opened(options, write=True) as workspace:
        run = workspace.run
        workspace.lock()
        db = workspace.ledger.db
        live = [one for one in queries.chunks(db, run.id) if one.state in (ChunkState.SUBMITTED, ChunkState.INTENT)]
        question = f"Cancel {plural(len(live), 'batch', 'batches')} of {run.id}? Finished rows are kept and billed."
        if live and not options.yes and not is_simulated(workspace) and not (options.ask and options.ask(question)):
            raise ConsentMissing(
                f"cancelling {run.id} needs your word", effect="nothing was cancelled", hint="add --yes"
            )
        asked: list[str] = []
        with workspace.ledger.transaction() as transaction:
            transitions.stop(transaction, run.id, True, because="cancel")
        if live:
            provider = workspace.provider(workspace.frozen_plan())
            reconcile.settle(workspace, provider, run)
            asked = stop_batches(workspace, provider, run, again=True)
            done = looked(workspace, queries.run(db, run.id))
            if done.problems:
                raise done.problems[0]
        left = [one for one in queries.chunks(db, run.id) if one.state is ChunkState.SUBMITTED]
        first = f"Asked the provider to cancel {plural(len(asked), 'batch', 'batches')}"
        lines = [first if asked else "No batch of this run is running at the provider", *chunk_lines(workspace, run)]
        code = Exit.PENDING if left else Exit.OK
        following = f"batchctl poll {run.id} --wait" if left else f"batchctl validate {run.id}"
        if not left and any(one.state in SENDABLE for one in queries.chunks(db, run.id)):
            following = f"batchctl submit {run.id}   (what waits is sent only then)"
        return Report(
            "cancel",
            run.id,
            code,
            queries.balance(db, run.id),
            cost(db, run, queries.balance(db, run.id)),
            tuple(lines),
            following,
            {"cancelled": asked},
            simulated=is_simulated(workspace),
        )
